"""Passwords as they are stored and checked: Argon2id (RFC 9106)."""

from __future__ import annotations

import asyncio
import secrets
import unicodedata

import argon2

LEAST_CHARACTERS, MOST_CHARACTERS = 12, 1024

_AT_ONCE = 2
"""Each takes 64 MiB and a core for some tens of milliseconds."""


class Passwords:
    """Hashes off the event loop, two at a time. Parameters are the second choice of RFC 9106, section 4, which is well
    above what OWASP asks for: 64 MiB, three passes, four lanes."""

    def __init__(self) -> None:
        self._hasher = argon2.PasswordHasher.from_parameters(argon2.profiles.RFC_9106_LOW_MEMORY)
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._nobodys: str | None = None

    async def hashed(self, password: str) -> str:
        """With its salt and parameters, as it is stored."""
        async with self._turns:
            return await asyncio.to_thread(self._hasher.hash, _normal(password))

    async def matches(self, stored: str | None, password: str) -> bool:
        """Whether ``password`` is the one; with None, as slow as any, that it is not."""
        if self._nobodys is None:
            self._nobodys = await self.hashed(secrets.token_hex(32))
        async with self._turns:
            same = await asyncio.to_thread(self._verified, stored or self._nobodys, _normal(password))
        return same and stored is not None

    def _verified(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except argon2.exceptions.VerifyMismatchError:
            return False


def _normal(password: str) -> str:
    # The same characters are typed in more than one way (NIST SP 800-63B, section 3.1.1.2).
    return unicodedata.normalize("NFKC", password)
