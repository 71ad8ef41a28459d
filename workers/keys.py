"""The provider keys of one pool: which one to ask with next, and what becomes of those that fail."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from pydantic import SecretStr

from backplane.ports.key_room import Full, KeyLimits, KeyRoom, KeyState, Taken, ring_of
from backplane.security.provider_key import ProviderKey as ProviderKey
from backplane.settings.pools import PoolSettings
from event_schemas.control_plane import ProviderKeySetAside
from event_schemas.envelope import PLATFORM
from event_schemas.payload import PaidBy
from workers.breaker import Breaker
from workers.inference.port import Limits, RequestRefused

logger = logging.getLogger(__name__)

_NO_GOOD_S = 600.0
"""How long a key rests that the provider does not take. Then one request tries it again."""

_LEAST_REST_S = 1.0

_NO_KEY = ProviderKey.of("none")
"""What a server of one's own is asked with where it wants no key."""

_FROM_ENVIRONMENT = {
    "openai": "OPENAI_API_KEY",
    "azure": "AZURE_OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "bedrock": "AWS_BEARER_TOKEN_BEDROCK",
}


class UnusableKey(ValueError):
    """A key that cannot be found. The message names the setting and what to do, and no secret."""


def configured_keys(
    pool_name: str, pool: PoolSettings, environment: Mapping[str, str] = os.environ
) -> tuple[ProviderKey, ...]:
    """The keys of the settings; where there are none, that of the environment, if any. Raises UnusableKey."""
    where = f"`keys` of [pools.{pool_name}]"
    if not pool.keys:
        secret = environment.get(_FROM_ENVIRONMENT.get(pool.backend, ""), "").strip()
        if secret:
            return (ProviderKey.of(secret),)
        return (_NO_KEY,) if pool.base_url is not None and pool.backend == "openai" else ()
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


def no_key(pool_name: str, pool: PoolSettings) -> UnusableKey:
    """Nobody gave the pool a key."""
    name = _FROM_ENVIRONMENT.get(pool.backend)
    return UnusableKey(
        f"pool {pool_name!r} has no key: set {f'{name}, or ' if name else ''}`keys` of [pools.{pool_name}], or add one"
        f" with `parley provider-key add --pool {pool_name}`"
    )


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to ask once with ``key``, which is ``owner``'s: a tenant's, or the platform's."""

    key: ProviderKey
    taken: Taken
    owner: UUID
    breaker: Breaker

    @property
    def paid_by(self) -> PaidBy:
        return "platform" if self.owner == PLATFORM else "tenant"


@dataclass(frozen=True, slots=True)
class _Ring:
    """All keys of one owner in the pool."""

    name: str
    owner: UUID
    keys: Mapping[str, ProviderKey]
    limits: Sequence[KeyLimits]
    breakers: Mapping[str, Breaker]


class Keys:
    """The keys of ``pool`` as one worker uses them. What they may still be asked, all workers count together.

    A tenant that added keys of its own is asked for with these only, and nobody else is. Everybody else has the
    platform's: ``configured``, and those that were added.
    """

    def __init__(self, pool_name: str, pool: PoolSettings, configured: Sequence[ProviderKey], room: KeyRoom) -> None:
        self._pool_name = pool_name
        self._settings = pool
        self._configured = configured
        self._room = room
        self._rings: dict[UUID, _Ring] = {}
        self._out: dict[str, Taken] = {}
        self.use({})

    def use(self, added: Mapping[UUID, Sequence[ProviderKey]]) -> None:
        """From now on these keys are used, by owner, beside the configured ones. What is asked already goes on.

        A tenant that stands there without any has keys that cannot be opened: it is not asked for with others'.
        """
        platforms = added.get(PLATFORM, ())
        configured = [key for key in self._configured if key != _NO_KEY or not platforms]
        owned = {**added, PLATFORM: (*configured, *platforms)}
        self._rings = {owner: self._ring(owner, keys) for owner, keys in owned.items()}

    def ring_of(self, tenant_id: UUID) -> str:
        """The ring whose keys this tenant's prompts are asked with."""
        return self._of(tenant_id).name

    @property
    def are_none(self) -> bool:
        """Nobody has a key here, neither the platform nor any tenant."""
        return len(self._rings) == 1 and not self._rings[PLATFORM].keys

    def refusal(self, tenant_id: UUID) -> RequestRefused:
        """What to end with where ``take`` says that this tenant's keys are refused, or that there are none."""
        own = self._of(tenant_id).owner != PLATFORM
        return RequestRefused("own_keys_refused" if own else "no_usable_key", self._why_none_is_usable(tenant_id))

    def _why_none_is_usable(self, tenant_id: UUID) -> str:
        ring, pool = self._of(tenant_id), repr(self._pool_name)
        if ring.owner == PLATFORM and not ring.keys:
            return f"the platform has no key for pool {pool}: give the pool `keys`, or add one of the tenant's own"
        if not ring.keys:
            return f"the tenant's own keys for pool {pool} cannot be opened any more: retire them, and add them again"
        those, instead = f"the keys of pool {pool}", "give the pool other `keys`"
        if ring.owner != PLATFORM:
            those = f"the tenant's own keys for pool {pool}"
            instead = "add another one, or retire them all to be asked for with the platform's"
        return f"the provider takes none of {those}: they are wrong, revoked, or their accounts are empty; {instead}"

    async def take(self, tenant_id: UUID, tokens: int) -> Permit | Full:
        """Leave for a request of about ``tokens`` tokens. Raises RoomUnavailable."""
        now = time.monotonic()
        ring = self._of(tenant_id)
        if not ring.keys:
            return Full(0.0, refused=True)
        waits = {key_id: breaker.wait_s(now) for key_id, breaker in ring.breakers.items()}
        able = [limits for limits in ring.limits if not waits[limits.key_id]]
        if not able:
            return Full(min(waits.values()), failing=True)
        answer = await self._room.take(ring.name, able, tokens)
        if isinstance(answer, Full):
            return Full(answer.wait_s, answer.refused and len(able) == len(ring.limits))
        breaker = ring.breakers[answer.key_id]
        breaker.begin(now)
        self._out[answer.ticket] = answer
        return Permit(ring.keys[answer.key_id], answer, ring.owner, breaker)

    async def answered(self, permit: Permit, limits: Limits) -> None:
        """The provider answered, and said this of the key. Raises RoomUnavailable."""
        permit.breaker.succeeded()
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
        permit.breaker.given_up()
        self._out.pop(permit.taken.ticket, None)
        await self._room.give_back(permit.taken)

    async def has_no_room(self, permit: Permit, retry_after_s: float | None) -> None:
        """The provider answered 429. Raises RoomUnavailable."""
        permit.breaker.succeeded()
        await self._rest(permit, max(_LEAST_REST_S, retry_after_s or 0.0), "rate_limited")

    async def is_no_good(self, permit: Permit, reason: str) -> ProviderKeySetAside | None:
        """The provider does not take the key; ``reason`` begins with ``key_``. Returns the news, where it is news.
        Raises RoomUnavailable."""
        permit.breaker.succeeded()
        if not await self._rest(permit, _NO_GOOD_S, reason):
            return None
        return ProviderKeySetAside(key_id=permit.key.id, pool=self._pool_name, reason=reason, seconds=round(_NO_GOOD_S))

    def failed(self, permit: Permit) -> None:
        """The provider failed, or was not there."""
        permit.breaker.failed(time.monotonic())

    def stopped(self, permit: Permit) -> None:
        """It was stopped before anybody could tell whether the provider works."""
        permit.breaker.given_up()

    async def look(self) -> Sequence[KeyState]:
        """The platform's keys as they stand. Raises RoomUnavailable."""
        ring = self._rings[PLATFORM]
        return await self._room.look(ring.name, ring.limits)

    async def renew(self) -> None:
        """What was taken here still runs; called every few seconds. Raises RoomUnavailable."""
        if self._out:
            await self._room.renew(list(self._out.values()))

    async def _rest(self, permit: Permit, seconds: float, reason: str) -> bool:
        rests = await self._room.rest(permit.taken.ring, permit.key.id, seconds, reason)
        if rests:
            about = {"pool": self._pool_name, "tenant_id": str(permit.owner), "key": permit.key.id, "reason": reason}
            logger.warning("key rests", extra={"action": "key_rests", "seconds": round(seconds, 1)} | about)
        return rests

    def _of(self, tenant_id: UUID) -> _Ring:
        return self._rings.get(tenant_id) or self._rings[PLATFORM]

    def _ring(self, owner: UUID, keys: Sequence[ProviderKey]) -> _Ring:
        unique = {key.id: key for key in keys}
        before = self._rings[owner].breakers if owner in self._rings else {}
        pool = self._settings
        return _Ring(
            ring_of(self._pool_name, owner),
            owner,
            unique,
            [KeyLimits(id, pool.requests_per_minute, pool.tokens_per_minute, pool.concurrency) for id in unique],
            {id: before.get(id) or Breaker() for id in unique},
        )
