"""From an API key to the principal it stands for."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from datetime import UTC, datetime

from backplane.ports.database import Database
from backplane.ports.token_stream import Signals
from backplane.security.api_key import ApiKey
from backplane.security.principal import Principal
from event_schemas.share import Share

REVOCATIONS = "keys:revoked"
"""Signals channel on which a revoked key's prefix is sent."""

_MOST_REMEMBERED = 10_000


class Authenticator:
    """Looks a key up once, then remembers it for ``remember_s`` seconds, or until its revocation is signalled.

    What is remembered is found by a hash of the whole key, so a wrong secret never meets a remembered one.
    """

    def __init__(
        self, database: Database, pepper: str, remember_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._pepper = pepper
        self._remember_s = remember_s
        self._clock = clock
        self._remembered: dict[bytes, tuple[float, str, Principal]] = {}

    async def principal(self, text: str) -> Principal | None:
        """Who the key stands for; None if it is malformed, unknown, wrong, expired or revoked.

        Raises DatabaseUnavailable.
        """
        key = ApiKey.parse(text)
        if key is None:
            return None
        digest = hashlib.sha256(text.encode()).digest()
        known = self._remembered.get(digest)
        if known is not None and known[0] > self._clock():
            return known[2]
        rows = await self._database.at_once("SELECT * FROM control.find_key(:prefix)", prefix=key.prefix)
        if not rows or not key.matches(rows[0]["secret_hash"], self._pepper):
            return None
        row = rows[0]
        if row["revoked_at"] is not None or (row["expires_at"] is not None and row["expires_at"] <= datetime.now(UTC)):
            self._remembered.pop(digest, None)
            return None
        share = Share(weight=row["weight"], priority=row["priority"])
        principal = Principal(row["tenant_id"], row["key_id"], row["user_id"], row["role"], share)
        lives_s = self._remember_s
        if row["expires_at"] is not None:
            lives_s = min(lives_s, (row["expires_at"] - datetime.now(UTC)).total_seconds())
        if len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[digest] = (self._clock() + lives_s, key.prefix, principal)
        return principal

    def forget(self, prefix: str) -> None:
        """The key with this prefix was revoked."""
        for digest in [digest for digest, known in self._remembered.items() if known[1] == prefix]:
            del self._remembered[digest]

    async def forget_revoked(self, signals: Signals, stop: asyncio.Event) -> None:
        """Follow the revocations until ``stop`` is set."""
        async with signals.listen(REVOCATIONS) as prefixes:
            stopped = asyncio.ensure_future(stop.wait())
            while not stopped.done():
                arrived = asyncio.ensure_future(anext(prefixes))
                await asyncio.wait({arrived, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if not arrived.done():
                    arrived.cancel()
                    return
                self.forget(arrived.result())
