"""Where a queued prompt stands: how many are likely to start before it, and when it may itself."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from backplane.ports.database import Row
from backplane.ports.key_room import RoomUnavailable, RoomView, Shut, ring_of
from event_schemas.envelope import PLATFORM

_MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Place:
    """``estimated_wait_s`` is None where nobody knows."""

    ahead: int
    estimated_wait_s: float | None

    @classmethod
    async def of(cls, known: Row | None, room: RoomView) -> Place | None:
        """``known`` is what ``control.queue_place`` tells of a queued prompt; None where it is not queued."""
        if known is None:
            return None
        try:
            ring = ring_of(known["pool"], UUID(known["owner"]) if known["owner"] else PLATFORM)
            wait_s = estimated_wait_s(known, await room.shut(ring))
        except RoomUnavailable:
            wait_s = None
        return cls(known["ahead"], None if wait_s is None else round(wait_s, 1))


def estimated_wait_s(known: Row, shut: Shut | None) -> float | None:
    """At the pace of the pool's last minute; None where nothing is known of it."""
    ahead = known["ahead"]
    if shut is not None and not shut.rests:
        # A provider counts back a minute: what it let begin in the last one, it lets begin at the same second again.
        if not known["started"]:
            return None
        again_s = _MINUTE_S * (1 + ahead // known["started"]) - known["start_age_s"]
        return float(max(shut.seconds, again_s))
    if not known["ended"]:
        return None
    return float((ahead + 1) * known["busy_s"] / known["ended"] + (0.0 if shut is None else shut.seconds))
