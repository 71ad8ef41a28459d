"""API keys: ``parley_<prefix>_<secret>``. The prefix is public and finds the row; only a keyed hash is stored."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

_FORM = re.compile(r"^parley_(?P<prefix>[0-9a-f]{16})_(?P<secret>[0-9a-f]{64})$")


@dataclass(frozen=True, slots=True)
class ApiKey:
    prefix: str
    secret: str

    def __repr__(self) -> str:
        return f"ApiKey({self.prefix}…)"

    @classmethod
    def make(cls) -> ApiKey:
        """A new key with 256 bits of secret."""
        return cls(secrets.token_hex(8), secrets.token_hex(32))

    @classmethod
    def parse(cls, text: str) -> ApiKey | None:
        """None where ``text`` does not have the form of a key."""
        match = _FORM.match(text)
        return None if match is None else cls(match["prefix"], match["secret"])

    @property
    def public(self) -> str:
        """What may be shown: it finds the key, and opens nothing."""
        return f"parley_{self.prefix}"

    def reveal(self) -> str:
        """The whole key, to be shown once."""
        return f"parley_{self.prefix}_{self.secret}"

    def hashed(self, pepper: str) -> bytes:
        """HMAC-SHA-256 under the installation's pepper (RFC 2104). The secret is random, so no slow hash is needed."""
        return hmac.digest(pepper.encode(), self.secret.encode(), hashlib.sha256)

    def matches(self, stored: bytes, pepper: str) -> bool:
        """Compares in constant time."""
        return hmac.compare_digest(self.hashed(pepper), stored)
