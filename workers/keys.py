"""The provider keys of one pool: which one to ask with next, and what becomes of those that fail."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from pydantic import SecretStr

from backplane.ports.key_room import Full, KeyLimits, KeyRoom, KeyState, Taken
from backplane.settings.pools import PoolSettings
from event_schemas.control_plane import ProviderKeySetAside
from workers.breaker import Breaker
from workers.inference.port import Limits

logger = logging.getLogger(__name__)

_NO_GOOD_S = 600.0
"""How long a key rests that the provider does not take. Then one request tries it again."""

_LEAST_REST_S = 1.0

_FROM_ENVIRONMENT = {
    "openai": "OPENAI_API_KEY",
    "azure": "AZURE_OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "bedrock": "AWS_BEARER_TOKEN_BEDROCK",
}


class UnusableKey(ValueError):
    """A key of the settings that cannot be found. The message names the setting and what to do, and no secret."""


@dataclass(frozen=True, slots=True)
class ProviderKey:
    id: str
    """Stable and public: a hash that tells nothing of the key."""
    secret: str = field(repr=False)

    @classmethod
    def of(cls, secret: str) -> ProviderKey:
        return cls(hashlib.blake2b(secret.encode(), digest_size=6, person=b"parley.key").hexdigest(), secret)


def configured_keys(
    pool_name: str, pool: PoolSettings, environment: Mapping[str, str] = os.environ
) -> tuple[ProviderKey, ...]:
    """The keys of the settings; where there are none, that of the environment. Raises UnusableKey."""
    where = f"`keys` of [pools.{pool_name}]"
    if not pool.keys:
        name = _FROM_ENVIRONMENT.get(pool.backend, "")
        secret = environment.get(name, "").strip()
        if secret:
            return (ProviderKey.of(secret),)
        if pool.base_url is not None and pool.backend == "openai":
            return (ProviderKey.of("none"),)  # a server of one's own wants no key
        raise UnusableKey(f"pool {pool_name!r} has no key: set {name}, or {where}")
    found = {key.id: key for key in (_key(one, where, environment) for one in pool.keys)}
    return tuple(found.values())


def _key(given: SecretStr, where: str, environment: Mapping[str, str]) -> ProviderKey:
    kind, colon, name = given.get_secret_value().partition(":")
    secret = given.get_secret_value()
    if colon and kind == "env":
        secret = environment.get(name, "")
        if not secret.strip():
            raise UnusableKey(f"{where} names the environment variable {name}, which is not set")
    elif colon and kind == "file":
        try:
            secret = Path(name).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UnusableKey(f"{where} names the file {name}, which cannot be read: {type(error).__name__}") from None
        if not secret.strip():
            raise UnusableKey(f"{where} names the file {name}, which is empty")
    return ProviderKey.of(secret.strip())


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to ask once with ``key``."""

    key: ProviderKey
    taken: Taken


class Keys:
    """The keys of ``pool`` as one worker uses them. What they may still be asked, all workers count together."""

    def __init__(self, pool_name: str, pool: PoolSettings, keys: Sequence[ProviderKey], room: KeyRoom) -> None:
        self._ring = pool_name
        self._keys = {key.id: key for key in keys}
        self._limits = [
            KeyLimits(key.id, pool.requests_per_minute, pool.tokens_per_minute, pool.concurrency) for key in keys
        ]
        self._room = room
        self._breakers = {key.id: Breaker() for key in keys}
        self._out: dict[str, Taken] = {}

    def ring_of(self, tenant_id: UUID) -> str:
        """The ring whose keys this tenant's prompts are asked with."""
        return self._ring

    async def take(self, tenant_id: UUID, tokens: int) -> Permit | Full:
        """Leave for a request of about ``tokens`` tokens. Raises RoomUnavailable."""
        now = time.monotonic()
        waits = {limits.key_id: self._breakers[limits.key_id].wait_s(now) for limits in self._limits}
        able = [limits for limits in self._limits if not waits[limits.key_id]]
        if not able:
            return Full(min(waits.values()), failing=True)
        answer = await self._room.take(self._ring, able, tokens)
        if isinstance(answer, Full):
            return Full(answer.wait_s, answer.refused and len(able) == len(self._limits))
        self._breakers[answer.key_id].begin(now)
        self._out[answer.ticket] = answer
        return Permit(self._keys[answer.key_id], answer)

    async def answered(self, permit: Permit, limits: Limits) -> None:
        """The provider answered, and said this of the key. Raises RoomUnavailable."""
        self._breakers[permit.key.id].succeeded()
        await self._room.counted(permit.taken)
        if limits.requests_per_minute is not None or limits.tokens_per_minute is not None:
            await self._room.learn(
                permit.taken.ring,
                permit.key.id,
                requests_per_minute=limits.requests_per_minute,
                tokens_per_minute=limits.tokens_per_minute,
            )
        rests = [
            reset
            for left, reset in (
                (limits.requests_left, limits.requests_reset_s),
                (limits.tokens_left, limits.tokens_reset_s),
            )
            if left == 0 and reset
        ]
        if rests:
            await self._rest(permit, max(rests), "nothing_left")

    async def done(self, permit: Permit, tokens: int | None) -> None:
        """It has ended and used ``tokens``; None: nobody knows. Raises RoomUnavailable."""
        self._out.pop(permit.taken.ticket, None)
        await self._room.done(permit.taken, tokens)

    async def give_back(self, permit: Permit) -> None:
        """Nothing was asked. Raises RoomUnavailable."""
        self._breakers[permit.key.id].given_up()
        self._out.pop(permit.taken.ticket, None)
        await self._room.give_back(permit.taken)

    async def has_no_room(self, permit: Permit, retry_after_s: float | None) -> None:
        """The provider answered 429. Raises RoomUnavailable."""
        self._breakers[permit.key.id].succeeded()
        await self._rest(permit, max(_LEAST_REST_S, retry_after_s or 0.0), "rate_limited")

    async def is_no_good(self, permit: Permit, reason: str) -> ProviderKeySetAside | None:
        """The provider does not take the key; ``reason`` begins with ``key_``. Returns the news, where it is news.
        Raises RoomUnavailable."""
        self._breakers[permit.key.id].succeeded()
        if not await self._rest(permit, _NO_GOOD_S, reason):
            return None
        return ProviderKeySetAside(
            key_id=permit.key.id, pool=permit.taken.ring, reason=reason, seconds=round(_NO_GOOD_S)
        )

    def failed(self, permit: Permit) -> None:
        """The provider failed, or was not there."""
        self._breakers[permit.key.id].failed(time.monotonic())

    def stopped(self, permit: Permit) -> None:
        """It was stopped before anybody could tell whether the provider works."""
        self._breakers[permit.key.id].given_up()

    async def look(self) -> Sequence[KeyState]:
        """All keys as they stand. Raises RoomUnavailable."""
        return await self._room.look(self._ring, self._limits)

    async def renew(self) -> None:
        """What was taken here still runs; called every few seconds. Raises RoomUnavailable."""
        if self._out:
            await self._room.renew(list(self._out.values()))

    async def _rest(self, permit: Permit, seconds: float, reason: str) -> bool:
        rests = await self._room.rest(permit.taken.ring, permit.key.id, seconds, reason)
        if rests:
            about = {"pool": permit.taken.ring, "key": permit.key.id, "seconds": round(seconds, 1), "reason": reason}
            logger.warning("key rests", extra={"action": "key_rests"} | about)
        return rests
