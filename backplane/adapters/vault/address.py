"""Where a Vault is, which key of it is ours, and who we are there."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

from backplane.ports.key_wrapping import WrappingRefused


@dataclass(frozen=True, slots=True)
class VaultAddress:
    url: str
    mount: str
    key: str
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    """Goes before ``token``."""
    ca_file: Path | None = None

    def transit(self, operation: str) -> str:
        return f"{self.url.rstrip('/')}/v1/{self.mount}/{operation}/{self.key}"

    def read_token(self) -> str:
        """As it is now: an agent that renews it replaces the file. Raises WrappingRefused."""
        if self.token_file is None:
            return self.token or ""
        try:
            token = self.token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise WrappingRefused(
                f"security.vault_token_file: {self.token_file} cannot be read: {type(error).__name__}"
            ) from None
        if not (token and token.isascii() and token.isprintable()):
            raise WrappingRefused(f"security.vault_token_file: {self.token_file} does not hold one token")
        return token

    def trusted(self) -> ssl.SSLContext | bool:
        """Who may have signed the server's certificate. Raises WrappingRefused."""
        if self.ca_file is None:
            return True
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise WrappingRefused(
                f"security.vault_ca_file: {self.ca_file} cannot be read: {type(error).__name__}"
            ) from None
