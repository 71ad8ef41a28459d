"""Reading what was just written: have the projections passed what stands on the bus?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from backplane.ports.bus import Log, Position
from backplane.ports.database import Database

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.004, 0.1

_POSITIONS = "SELECT topic, partition, ledger, entry FROM read_models.positions WHERE topic = ANY(:topics)"

Partition = tuple[str, int]


async def caught_up(log: Log, database: Database, topics: Sequence[str], deadline_s: float) -> bool:
    """Wait until the projections have passed all that stood on ``topics`` when this was called.

    False if they have not within ``deadline_s`` seconds. Raises UnknownTopic, BusUnavailable, DatabaseUnavailable.
    """
    deadline = asyncio.get_running_loop().time() + deadline_s
    ahead = await _heads(log, topics)
    pause = _FIRST_PAUSE_S
    while ahead:
        passed = await _positions(database, topics)
        ahead = {place: head for place, head in ahead.items() if place not in passed or passed[place] < head}
        left = deadline - asyncio.get_running_loop().time()
        if ahead and left <= 0:
            return False
        if ahead:
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 2, _LONGEST_PAUSE_S)
    return True


async def _heads(log: Log, topics: Sequence[str]) -> dict[Partition, Position]:
    heads = await asyncio.gather(*(log.heads(topic) for topic in topics))
    return {
        (topic, partition): head
        for topic, partitions in zip(topics, heads, strict=True)
        for partition, head in enumerate(partitions)
        if head is not None
    }


async def _positions(database: Database, topics: Sequence[str]) -> dict[Partition, Position]:
    # Positions belong to no tenant, and say nothing of any.
    async with database.system() as session:
        rows = await session.all(_POSITIONS, topics=list(topics))
    return {(row["topic"], row["partition"]): Position(row["ledger"], row["entry"]) for row in rows}
