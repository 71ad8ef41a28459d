"""From an API key or a session's token to the principal it stands for."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

from backplane.ports.database import Database, Row
from backplane.ports.token_stream import Signals
from backplane.security import secret_token
from backplane.security.api_key import ApiKey
from backplane.security.permissions import lesser
from backplane.security.principal import Principal
from event_schemas.share import Share

REVOCATIONS = "keys:revoked"
"""Signals channel on which is sent what is not to be remembered any more, as `revocation` writes it."""

_MOST_REMEMBERED = 10_000


def revocation(kind: Literal["key", "session", "user", "tenant"], id: UUID) -> str:
    """What is sent once a key or a session ends, or anything else changes in who a user or a tenant is."""
    return f"{kind}:{id}"


class NotAccepted(Exception):
    """The key or the session stands for nobody. The message says why, to whoever held the right secret."""


@dataclass(frozen=True, slots=True)
class _Remembered:
    until: float
    named: frozenset[str]
    """What revokes it."""
    principal: Principal


class Authenticator:
    """Looks a key or a session up once, then remembers it for ``remember_s`` seconds, or until its revocation is
    signalled.

    What is remembered is found by a hash of the whole secret, so a wrong one never meets a remembered one.
    """

    def __init__(
        self,
        database: Database,
        pepper: str,
        remember_s: float,
        idle_s: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._pepper = pepper
        self._remember_s = remember_s
        self._idle_s = idle_s
        self._clock = clock
        self._remembered: dict[bytes, _Remembered] = {}
        self._revocations = 0

    async def principal(self, text: str) -> Principal:
        """Who the API key stands for. Raises NotAccepted, DatabaseUnavailable."""
        key = ApiKey.parse(text)
        if key is None:
            raise NotAccepted("This is no API key: one looks like parley_<16 digits>_<64 digits>.")
        digest = hashlib.sha256(text.encode()).digest()
        if (known := self._known(digest)) is not None:
            return known
        revocations = self._revocations
        rows = await self._database.at_once("SELECT * FROM control.find_key(:prefix)", prefix=key.prefix)
        if not rows or not key.matches(rows[0]["secret_hash"], self._pepper):
            raise NotAccepted("The API key is unknown.")
        return self._accepted(digest, "API key", {"session_id": None, **rows[0]}, revocations)

    async def session(self, token: str) -> Principal:
        """Who the session stands for; it is not idle from this on. Raises NotAccepted, DatabaseUnavailable."""
        digest = secret_token.hashed(token, "session", self._pepper)
        if digest is None:
            raise NotAccepted("The session is unknown: sign in.")
        if (known := self._known(digest)) is not None:
            return known
        revocations = self._revocations
        rows = await self._database.at_once(
            "SELECT * FROM control.find_session(:wanted, :idle_s)", wanted=digest, idle_s=self._idle_s
        )
        if not rows:
            raise NotAccepted("The session is unknown: sign in.")
        return self._accepted(digest, "session", rows[0], revocations)

    def forget(self, revoked: str) -> None:
        """``revoked`` is what `revocation` made."""
        self._revocations += 1
        for digest in [digest for digest, known in self._remembered.items() if revoked in known.named]:
            del self._remembered[digest]

    async def forget_revoked(self, signals: Signals) -> None:
        """Follow the revocations until this task is cancelled."""
        async with signals.listen(REVOCATIONS) as revocations:
            async for revoked in revocations:
                self.forget(revoked)

    def _known(self, digest: bytes) -> Principal | None:
        known = self._remembered.get(digest)
        return known.principal if known is not None and known.until > self._clock() else None

    def _accepted(self, digest: bytes, what: str, row: Row, revocations: int) -> Principal:
        self._remembered.pop(digest, None)
        expires_at: datetime | None = row["expires_at"]
        left_s = None if expires_at is None else (expires_at - datetime.now(UTC)).total_seconds()
        role = row["role"] if row["user_role"] is None else lesser(row["role"], row["user_role"])
        if row["revoked"]:
            raise NotAccepted(f"The {what} was revoked.")
        if left_s is not None and left_s <= 0:
            raise NotAccepted(f"The {what} has expired.")
        if row["tenant_suspended"]:
            raise NotAccepted(f"The tenant of this {what} is suspended.")
        if row["user_suspended"]:
            raise NotAccepted(f"The user of this {what} is suspended.")
        if role is None:
            raise NotAccepted(f"The key's user is {row['user_role']} now, which has no part of the key's role.")
        key_id, session_id, user_id = row["key_id"], row["session_id"], row["user_id"]
        principal = Principal(
            row["tenant_id"],
            key_id or session_id,
            user_id,
            role,
            Share(weight=row["weight"], priority=row["priority"]),
            None if row["models"] is None else frozenset(row["models"]),
            None if row["personas"] is None else frozenset(row["personas"]),
            session_id,
            expires_at if key_id is not None else None,
        )
        if revocations != self._revocations:
            return principal  # it may have been revoked since it was looked up, so the next request looks again
        if len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered.clear()
        named = {revocation("tenant", principal.tenant_id)}
        named |= {revocation("key", key_id)} if key_id else set()
        named |= {revocation("session", session_id)} if session_id else set()
        named |= {revocation("user", user_id)} if user_id else set()
        lives_s = self._remember_s if left_s is None else min(self._remember_s, left_s)
        self._remembered[digest] = _Remembered(self._clock() + lives_s, frozenset(named), principal)
        return principal
