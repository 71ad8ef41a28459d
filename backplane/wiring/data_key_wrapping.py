"""Who wraps data keys, and who has wrapped them: an installation may move its master key into a Vault."""

from __future__ import annotations

from backplane.adapters.vault import WRAPPED_BY_VAULT, VaultAddress, VaultTransit
from backplane.ports.key_wrapping import CannotUnwrap
from backplane.security.sealing import MasterKey
from backplane.settings import SecuritySettings


class DataKeyWrapping:
    """New keys are wrapped by ``vault`` where there is one; what ``local`` wrapped before still opens."""

    def __init__(self, local: MasterKey, vault: VaultTransit | None) -> None:
        self._local = local
        self._vault = vault

    @classmethod
    def of(cls, security: SecuritySettings, local: MasterKey) -> DataKeyWrapping:
        """Raises WrappingRefused where a file that the settings name cannot be used."""
        if security.vault_url is None or security.vault_key is None:
            return cls(local, None)
        token = None if security.vault_token is None else security.vault_token.get_secret_value()
        address = VaultAddress(
            *(security.vault_url, security.vault_mount, security.vault_key),
            *(token, security.vault_token_file, security.vault_ca_file),
        )
        return cls(local, VaultTransit(address))

    async def wrap(self, key: bytes, belongs_to: str) -> bytes:
        return await (self._vault or self._local).wrap(key, belongs_to)

    async def unwrap(self, wrapped: bytes, belongs_to: str) -> bytes:
        # What the master key wrapped begins with a version byte, 0x01.
        if not wrapped.startswith(WRAPPED_BY_VAULT):
            return await self._local.unwrap(wrapped, belongs_to)
        if self._vault is None:
            raise CannotUnwrap("a Vault wrapped it, and security.vault_url is not set; set it again")
        return await self._vault.unwrap(wrapped, belongs_to)

    async def aclose(self) -> None:
        if self._vault is not None:
            await self._vault.aclose()
