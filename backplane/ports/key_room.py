"""How much each provider key may still be asked, counted for all workers together.

What is counted is what the provider counts: a request fills its key's window from when it was asked until a whole
window after the provider is known to have counted it, so that no delay on the way puts a key over its limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID


def ring_of(pool: str, owner: UUID) -> str:
    """The name of the keys that ``owner`` (the platform, or a tenant) has in ``pool``."""
    return pool if not owner.int else f"{pool}:{owner}"


class RoomUnavailable(Exception):
    """The counters cannot be reached. Nothing may be asked until they can."""


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """A key by its public id, and what it may be asked. None: no limit is known."""

    key_id: str
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """Room for one request with this key. To be ended by ``done`` or ``give_back``, and renewed until then."""

    ring: str
    key_id: str
    ticket: str


@dataclass(frozen=True, slots=True)
class Full:
    """No key of the ring has room. Asking before ``wait_s`` seconds have passed is in vain, later it may be."""

    wait_s: float
    refused: bool = False
    """Every key rests because it is no good, for a reason that begins with ``key_``."""
    failing: bool = False
    """The provider fails again and again, whichever key it is asked with."""


@dataclass(frozen=True, slots=True)
class KeyState:
    """One key as it stands: ``requests`` and ``tokens`` in the window, ``running`` now, seconds that it rests, and
    why."""

    key_id: str
    requests: int
    tokens: int
    running: int
    resting_s: float
    reason: str | None
    requests_per_minute: int | None
    tokens_per_minute: int | None


@dataclass(frozen=True, slots=True)
class Shut:
    """No key of a ring has room for so many seconds."""

    seconds: float
    rests: bool
    """The key that has some first is told to rest; else its window is full."""


class RoomView(Protocol):
    async def shut(self, ring: str) -> Shut | None:
        """What the last one who asked for room found; None where there was some, or may be in a moment.

        Raises RoomUnavailable.
        """


class KeyRoom(RoomView, Protocol):
    """A ring is the keys of one owner (the platform, or a tenant) in one pool. Everything raises RoomUnavailable."""

    async def take(self, ring: str, keys: Sequence[KeyLimits], tokens: int) -> Taken | Full:
        """Room for a request of about ``tokens`` tokens with the key that has most of it; in one atomic step.

        A request that is larger than a key's whole limit has room where nothing else is counted.
        """

    async def counted(self, taken: Taken) -> None:
        """The provider answered, so it has counted the request by now."""

    async def done(self, taken: Taken, tokens: int | None) -> None:
        """The request has ended and used ``tokens``; None: as many as it was taken for."""

    async def give_back(self, taken: Taken) -> None:
        """The request was never sent."""

    async def renew(self, taken: Sequence[Taken]) -> None:
        """These still run. What is not renewed for ``lease_s`` counts as ended, its worker lost."""

    async def rest(self, ring: str, key_id: str, seconds: float, reason: str) -> bool:
        """Ask nothing with this key for so long. False: no news, it rests for this reason or for longer already."""

    async def learn(
        self, ring: str, key_id: str, *, requests_per_minute: int | None, tokens_per_minute: int | None
    ) -> None:
        """What the provider says that the limits are; that wins over what is configured. None: it does not say."""

    async def look(self, ring: str, keys: Sequence[KeyLimits]) -> list[KeyState]:
        """All keys as they stand."""
