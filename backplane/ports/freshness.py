"""Reading what was just written: have the projections passed what stands on the bus?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import Context
from dataclasses import dataclass

from backplane.ports.bus import BusError, Log, Position
from backplane.ports.database import Database, DatabaseUnavailable

_PAUSE_S = 0.01

_POSITIONS = "SELECT topic, partition, ledger, entry FROM read_models.positions WHERE topic = ANY(:topics)"

Partition = tuple[str, int]


@dataclass(eq=False, slots=True)
class _Waiter:
    passed: asyncio.Future[None]
    ahead: dict[Partition, Position] | None = None
    """What the projections have still to pass; None until the bus was asked."""


async def caught_up(log: Log, database: Database, topics: Sequence[str], deadline_s: float) -> bool:
    """As ``Freshness``, for one who waits alone."""
    return await Freshness(log, database, topics).caught_up(deadline_s)


class Freshness:
    """Compares the bus with the read models, for all of a process who wait for it together."""

    def __init__(self, log: Log, database: Database, topics: Sequence[str]) -> None:
        self._log = log
        self._database = database
        self._topics = list(topics)
        self._waiters: set[_Waiter] = set()
        self._comparing: asyncio.Task[None] | None = None

    async def caught_up(self, deadline_s: float) -> bool:
        """Wait until the projections have passed all that stood on the topics when this was called.

        False if they have not within ``deadline_s`` seconds. Raises UnknownTopic, BusUnavailable, DatabaseUnavailable.
        """
        waiter = _Waiter(asyncio.get_running_loop().create_future())
        self._waiters.add(waiter)
        if self._comparing is None:
            self._comparing = asyncio.create_task(self._compare_on(), context=Context())
        try:
            async with asyncio.timeout(deadline_s):
                await waiter.passed
        except TimeoutError:
            return False
        finally:
            self._waiters.discard(waiter)
        return True

    async def _compare_on(self) -> None:
        """Until nobody waits any more."""
        try:
            while asked := [waiter for waiter in self._waiters if not waiter.passed.done()]:
                try:
                    await self._compare(asked)
                except (BusError, DatabaseUnavailable) as error:
                    for waiter in asked:
                        if not waiter.passed.done():
                            waiter.passed.set_exception(error)
                if any(not waiter.passed.done() for waiter in self._waiters):
                    await asyncio.sleep(_PAUSE_S)
        finally:
            self._comparing = None

    async def _compare(self, waiters: Sequence[_Waiter]) -> None:
        fresh = [waiter for waiter in waiters if waiter.ahead is None]
        if fresh:
            heads = await self._heads()
            for waiter in fresh:
                waiter.ahead = heads
        passed = await self._positions() if any(waiter.ahead for waiter in waiters) else {}
        for waiter in waiters:
            assert waiter.ahead is not None
            waiter.ahead = {at: head for at, head in waiter.ahead.items() if at not in passed or passed[at] < head}
            if not waiter.ahead and not waiter.passed.done():
                waiter.passed.set_result(None)

    async def _heads(self) -> dict[Partition, Position]:
        heads = await asyncio.gather(*(self._log.heads(topic) for topic in self._topics))
        return {
            (topic, partition): head
            for topic, partitions in zip(self._topics, heads, strict=True)
            for partition, head in enumerate(partitions)
            if head is not None
        }

    async def _positions(self) -> dict[Partition, Position]:
        # Positions belong to no tenant, and say nothing of any.
        rows = await self._database.at_once(_POSITIONS, topics=self._topics)
        return {(row["topic"], row["partition"]): Position(row["ledger"], row["entry"]) for row in rows}
