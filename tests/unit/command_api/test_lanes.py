from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from backplane.ports.bus import BusUnavailable
from command_api.lanes import Lanes, lanes

TENANT = UUID(int=7)
PARTITIONS = 4
FIRST, SECOND = lanes(TENANT, PARTITIONS)
TOPIC = "commands-p"


class World:
    """A bus that says what its backlogs are, once it is let, and a clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.full: set[int] = set()
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()
        self.error: Exception | None = None
        self.lanes = Lanes(self, lambda: self.now)  # type: ignore[arg-type]

    async def backlog(self, topic: str, subscription: str) -> list[int]:
        self.asked += 1
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        return [1000 if lane in self.full else 0 for lane in range(PARTITIONS)]

    async def choose(self) -> int:
        return await self.lanes.choose(TOPIC, TENANT)


async def test_the_emptier_lane_is_taken_and_what_went_there_is_counted() -> None:
    world = World()
    world.full = {FIRST}
    assert await world.choose() == SECOND
    world = World()
    assert [await world.choose() for _ in range(4)] == [FIRST, SECOND, FIRST, SECOND]
    assert world.asked == 1


async def test_while_prompts_come_none_waits_for_the_bus() -> None:
    world = World()
    await world.choose()
    world.answers.clear()
    for _ in range(10):
        world.now += 0.3
        choosing = world.choose()
        with pytest.raises(StopIteration):
            choosing.send(None)
        await asyncio.sleep(0)
    assert world.asked == 2
    world.answers.set()


async def test_after_a_quiet_spell_a_flood_that_came_meanwhile_is_seen() -> None:
    world = World()
    await world.choose()
    world.now += 60
    world.full = {FIRST}
    world.answers.clear()
    several = [asyncio.create_task(world.choose()) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    world.answers.set()
    assert await asyncio.gather(*several) == [SECOND] * 3
    assert world.asked == 2


async def test_a_bus_that_does_not_say_holds_nobody_up_for_long() -> None:
    world = World()
    await world.choose()
    world.answers.clear()
    world.now += 60
    async with asyncio.timeout(10):
        assert await world.choose() == SECOND, "as it was known before"
    world.answers.set()


async def test_a_bus_that_fails_is_asked_again_only_after_a_while() -> None:
    world = World()
    await world.choose()
    world.error = BusUnavailable("away")
    world.now += 60
    for _ in range(3):
        await world.choose()
    assert world.asked == 2
    world.now += 1
    await world.choose()
    assert world.asked == 3
