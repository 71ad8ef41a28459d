"""How far the projections are behind what was published."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from backplane.ports.bus import Publisher
from event_schemas.topics import PROJECTIONS

_POLL_S = 0.05
_DEADLINE_S = 120.0


class Lag(BaseModel):
    model_config = ConfigDict(frozen=True)

    behind: int = Field(description="messages that were published and not yet projected when the window closed")
    caught_up_s: float | None = Field(
        description="seconds from when the last client had its last answer until nothing was left; "
        f"none: something was after {_DEADLINE_S:.0f} s"
    )


async def behind(bus: Publisher, topics: Sequence[str]) -> int:
    """Raises BusUnavailable, UnknownTopic."""
    of_topics = await asyncio.gather(*(bus.backlog(topic, PROJECTIONS) for topic in topics))
    return sum(sum(partitions) for partitions in of_topics)


async def caught_up(bus: Publisher, topics: Sequence[str]) -> float | None:
    """Seconds until nothing is left. Raises as ``behind``."""
    began = time.monotonic()
    while await behind(bus, topics):
        if time.monotonic() - began > _DEADLINE_S:
            return None
        await asyncio.sleep(_POLL_S)
    return time.monotonic() - began
