"""Data keys wrapped by a server's transit secrets engine: HashiCorp Vault's, or OpenBao's."""

from backplane.adapters.vault.address import VaultAddress
from backplane.adapters.vault.transit import WRAPPED_BY_VAULT, VaultTransit

__all__ = ["WRAPPED_BY_VAULT", "VaultAddress", "VaultTransit"]
