"""That nothing is missing between what Postgres has and what the bus goes on with.

The bus remembers what the projections acknowledged, and Postgres what they applied; each may be set back without the
other, by a restore or by a replica that takes over. Postgres is believed: what it no longer has is read again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from backplane.ports.bus import Bus, Message, Position
from backplane.ports.database import Database
from backplane.telemetry.readiness import Readiness
from event_schemas.topics import PROJECTIONS
from projections import positions
from projections.batch import READ_MODELS, Batch
from projections.insistence import BLOCK, Insistence, Sorted
from projections.positions import Place
from projections.runner import MOST_MESSAGES, slices

logger = logging.getLogger(__name__)

BEGINNING = Position(-1, -1)
"""Before every message."""


class Continuity:
    """One a process."""

    def __init__(self, bus: Bus, database: Database, batch: Batch, readiness: Readiness, stop: asyncio.Event) -> None:
        self._bus = bus
        self._database = database
        self._batch = batch
        self._readiness = readiness
        self._insistence = Insistence(readiness, stop)
        self._committed: dict[Place, Position] = {}

    async def mend(self, topics: Sequence[str]) -> int:
        """Apply what was acknowledged on ``topics`` and Postgres does not have, as far as the bus still keeps it.

        Returns how many messages that were. To be called before subscribing, and again until it returns. Raises
        DatabaseUnavailable, BusError, NewerVersion, and Stopped.
        """
        applied = 0
        self._committed.clear()
        for topic in topics:
            # In this order another process that goes on meanwhile looks like no gap.
            acknowledged = await self._bus.acknowledged(topic, PROJECTIONS)
            known = await self._positions()
            heads = await self._bus.heads(topic)
            for partition, (head, done) in enumerate(zip(heads, acknowledged, strict=True)):
                place = topic, partition
                at = known.get(place, BEGINNING)
                if at > max(head or BEGINNING, done or BEGINNING):
                    # Of a log that is no more: it would count as passed what nobody has read.
                    await self._begin_anew(place)
                    at = BEGINNING
                if head is not None and done is not None and at < done:
                    applied += await self._read_again(place, at, done)
        return applied

    async def least(self, messages: Sequence[Message]) -> Mapping[Place, Position]:
        places = {(message.topic, message.partition) for message in messages}
        met = places - self._committed.keys()
        asked = {topic: await self._bus.acknowledged(topic, PROJECTIONS) for topic in {topic for topic, _ in met}}
        acknowledged = {(topic, partition): asked[topic][partition] for topic, partition in met}
        known = {place: self._committed[place] for place in places - met}
        return known | {place: position for place, position in acknowledged.items() if position is not None}

    def passed(self, messages: Sequence[Message]) -> None:
        for place, position in positions.furthest(messages).items():
            self._committed[place] = max(position, self._committed.get(place, position))

    async def _read_again(self, place: Place, at: Position, done: Position) -> int:
        count, after, kept = 0, at, True

        async def apply(sorted_: Sorted) -> None:
            nonlocal count
            # What is poison was set aside before it was acknowledged.
            count += await self._batch.apply(sorted_.received, sorted_.passed)
            self._readiness.block(BLOCK, "read again what Postgres did not have")

        while after < done:
            page = await self._bus.read(*place, after=None if after == BEGINNING else after, limit=MOST_MESSAGES)
            wanted = [message for message in page if message.position <= done]
            kept = kept and bool(wanted) and _may_follow(wanted[0].position, after)
            for messages in slices(wanted):
                newer = await self._insistence.until_done(messages, apply)
                if newer is not None:
                    raise newer[1]
            if len(wanted) < len(page) or not wanted:
                break
            after = wanted[-1].position
        # What the bus has dropped meanwhile is missing for good, and not to be looked for at each start.
        async with self._database.system() as session:
            await positions.advance(session, {place: done}, READ_MODELS)
        where = {"topic": place[0], "partition": place[1], "at": str(at), "done": str(done), "events": count}
        if kept:
            logger.warning("read again what Postgres did not have", extra={"action": "read_again"} | where)
        else:
            logger.warning(
                "events are missing for good: neither Postgres nor the bus has all that was acknowledged on %s, "
                "partition %d, from %s to %s",
                *place,
                at,
                done,
                extra={"action": "missing_for_good"} | where,
            )
        return count

    async def _positions(self) -> dict[Place, Position]:
        async with self._database.system() as session:
            return await positions.stored(session, READ_MODELS)

    async def _begin_anew(self, place: Place) -> None:
        async with self._database.system() as session:
            await positions.set_back(session, place, BEGINNING, READ_MODELS)
        where = {"topic": place[0], "partition": place[1]}
        logger.info("the bus has none of what was read", extra={"action": "bus_began_anew"} | where)


def _may_follow(first: Position, after: Position) -> bool:
    """False where something between the two is surely gone: on the Postgres bus always, on Pulsar, which drops whole
    ledgers and does not tell how long one was, within a ledger."""
    ledger, entry = max(after, Position(0, 0))  # the Postgres bus counts from 1
    return first.ledger != ledger or first.entry <= entry + 1
