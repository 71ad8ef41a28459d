"""Secrets as they are stored: sealed under the installation's master key, and opened where they are used.

AES-256-GCM (NIST SP 800-38D) with a random nonce. What a secret belongs to is authenticated with it, so that one that
was moved to another row does not open.
"""

from __future__ import annotations

import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from backplane.ports.key_wrapping import CannotUnwrap

_VERSION = b"\x01"
_NONCE_BYTES = 12
_ID_BYTES = 4
_HEAD_BYTES = len(_VERSION) + _ID_BYTES
_BODY_AT = _HEAD_BYTES + _NONCE_BYTES

_OF_SECRETS = "add the secret again"
_OF_DATA_KEYS = "restore the database and security.master_key from backups that belong together"


class CannotOpen(CannotUnwrap):
    """What was sealed cannot be opened. The message names master keys by their ids, and says what to do."""


class MasterKey:
    """``hexadecimal`` are its 256 bits, as the setting ``security.master_key`` has them. Wraps data keys, too: it is
    the ``KeyWrapping`` of who has no key management service."""

    def __init__(self, hexadecimal: str) -> None:
        raw = bytes.fromhex(hexadecimal)
        self._id = hashlib.blake2b(raw, digest_size=_ID_BYTES, person=b"parley.master").digest()
        self._cipher = AESGCM(raw)

    @property
    def id(self) -> str:
        """Public: a hash that tells nothing of the key."""
        return self._id.hex()

    def __repr__(self) -> str:
        return f"MasterKey({self.id})"

    def seal(self, secret: str, belongs_to: str) -> bytes:
        """``secret``, to be stored; it opens with the same ``belongs_to`` only."""
        return self._sealed(secret.encode(), belongs_to)

    def open(self, sealed: bytes, belongs_to: str) -> str:
        """The secret that was sealed. Raises CannotOpen."""
        return self._opened(sealed, belongs_to).decode()

    async def wrap(self, key: bytes, belongs_to: str) -> bytes:
        return self._sealed(key, belongs_to)

    async def unwrap(self, wrapped: bytes, belongs_to: str) -> bytes:
        return self._opened(wrapped, belongs_to, _OF_DATA_KEYS)

    def _sealed(self, secret: bytes, belongs_to: str) -> bytes:
        head, nonce = _VERSION + self._id, os.urandom(_NONCE_BYTES)
        return head + nonce + self._cipher.encrypt(nonce, secret, head + belongs_to.encode())

    def _opened(self, sealed: bytes, belongs_to: str, advice: str = _OF_SECRETS) -> bytes:
        head, nonce, body = sealed[:_HEAD_BYTES], sealed[_HEAD_BYTES:_BODY_AT], sealed[_BODY_AT:]
        if len(nonce) < _NONCE_BYTES or not head.startswith(_VERSION):
            raise CannotOpen(f"it is damaged, or was sealed by a newer release; {advice}")
        if head != _VERSION + self._id:
            raise CannotOpen(
                f"it was sealed under the master key {head[len(_VERSION) :].hex()}, and security.master_key is"
                f" {self.id}; set the former one again, or {advice}"
            )
        try:
            return self._cipher.decrypt(nonce, body, head + belongs_to.encode())
        except InvalidTag:
            raise CannotOpen(f"it was changed, or belongs elsewhere; {advice}") from None
