"""Waiting for the projections: for what stood on the bus when the wait began, and together with all who wait."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from backplane.ports.bus import BusUnavailable, Log, Position
from backplane.ports.database import Database, Row
from backplane.ports.freshness import Freshness


class World:
    """A bus of one topic with two partitions, and how far the projections have come on it."""

    def __init__(self) -> None:
        self.newest: list[int] = [0, 0]
        self.passed: list[int] = [0, 0]
        self.asked_bus = self.asked_database = 0
        self.away = False
        self.freshness = Freshness(cast(Log, self), cast(Database, self), ["events"])

    async def heads(self, topic: str) -> Sequence[Position | None]:
        self.asked_bus += 1
        await asyncio.sleep(0)
        if self.away:
            raise BusUnavailable("away by the test")
        return [Position(0, entry) if entry else None for entry in self.newest]

    async def at_once(self, sql: str, **parameters: Any) -> list[Row]:
        self.asked_database += 1
        await asyncio.sleep(0)
        return [
            {"topic": "events", "partition": partition, "ledger": 0, "entry": entry}
            for partition, entry in enumerate(self.passed)
            if entry
        ]

    async def rounds(self, more: int) -> None:
        """Wait until the read models were asked so many times more."""
        wanted = self.asked_database + more
        async with asyncio.timeout(10):
            while self.asked_database < wanted:
                await asyncio.sleep(0.001)


async def test_where_nothing_was_published_nobody_waits() -> None:
    world = World()
    assert await world.freshness.caught_up(10)
    assert world.asked_database == 0


async def test_it_waits_for_what_stood_there_and_not_for_what_came_since() -> None:
    world = World()
    world.newest, world.passed = [3, 5], [3, 4]
    waiting = asyncio.create_task(world.freshness.caught_up(10))
    await world.rounds(2)
    world.newest = [100, 100]
    assert not waiting.done()
    world.passed = [3, 5]
    assert await waiting
    assert world.asked_bus == 1


async def test_a_crowd_asks_together() -> None:
    world = World()
    world.newest = [1, 1]
    crowd = [asyncio.create_task(world.freshness.caught_up(10)) for _ in range(100)]
    await world.rounds(3)
    world.passed = [1, 1]
    assert await asyncio.gather(*crowd) == [True] * 100
    assert world.asked_bus == 1
    assert world.asked_database <= 6


async def test_who_comes_later_waits_for_more() -> None:
    world = World()
    world.newest = [1, 0]
    early = asyncio.create_task(world.freshness.caught_up(10))
    await world.rounds(1)
    world.newest = [2, 0]
    late = asyncio.create_task(world.freshness.caught_up(10))
    await world.rounds(2)
    world.passed = [1, 0]
    assert await early
    assert not late.done()
    world.passed = [2, 0]
    assert await late


async def test_projections_that_lag_are_given_up_at_the_deadline() -> None:
    world = World()
    world.newest = [1, 1]
    assert not await world.freshness.caught_up(0.03)
    world.passed = [1, 1]
    assert await world.freshness.caught_up(10)


async def test_an_outage_is_raised_to_all_who_wait_and_is_over_afterwards() -> None:
    world = World()
    world.newest, world.passed = [1, 1], [1, 1]
    world.away = True
    for outcome in await asyncio.gather(*(world.freshness.caught_up(10) for _ in range(5)), return_exceptions=True):
        assert isinstance(outcome, BusUnavailable)
    world.away = False
    assert await world.freshness.caught_up(10)


async def test_who_is_cancelled_disturbs_nobody() -> None:
    world = World()
    world.newest = [1, 1]
    leaving, staying = (asyncio.create_task(world.freshness.caught_up(10)) for _ in range(2))
    await world.rounds(1)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    world.passed = [1, 1]
    assert await staying
