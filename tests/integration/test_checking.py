from __future__ import annotations

import asyncio

import psutil
import pytest

from event_schemas.chat import Misfit
from workers.checking import checked

CATASTROPHE = {"type": "string", "pattern": "^(a|a)*$"}


async def test_what_fits_and_what_does_not() -> None:
    assert await checked(" 1 ", {"type": "integer"}, loose=False) == (1, 2)
    assert await checked("1", {"type": "null"}, loose=False) == Misfit(
        path="", keyword="type", message="1 is not of type 'null'"
    )


async def test_a_check_that_would_take_for_ever_is_ended_and_the_loop_goes_on() -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    assert await checked("1", {}, loose=False) == (0, 1)
    told = await checked('"' + "a" * 60 + '!"', CATASTROPHE, loose=False, deadline_s=2.0)
    ticking.cancel()
    assert isinstance(told, Misfit)
    assert told.keyword == "deadline"
    assert ticks > 50
    assert await checked("1", {}, loose=False) == (0, 1)


async def test_a_check_that_is_cancelled_leaves_no_process_behind() -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    checking = asyncio.create_task(checked('"' + "a" * 60 + '!"', CATASTROPHE, loose=False))

    def busy() -> list[psutil.Process]:
        """Those that have begun to check."""
        new = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
        return [child for child in new if child.is_running() and sum(child.cpu_times()[:2]) > 1.5]

    async with asyncio.timeout(60):
        while not busy():
            await asyncio.sleep(0.05)
    (process,) = busy()
    checking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await checking
    async with asyncio.timeout(20):
        while process.is_running():
            await asyncio.sleep(0.01)


async def test_who_is_cancelled_while_a_process_starts_leaves_one_that_is_used_again() -> None:
    checking = asyncio.create_task(checked("1", {}, loose=False))
    await asyncio.sleep(0)
    checking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await checking
    assert await checked("1", {}, loose=False) == (0, 1)
    assert await checked("2", {}, loose=False) == (0, 1)
    children = [child for child in psutil.Process().children() if "anyio.to_process" in child.cmdline()]
    assert len(children) <= 2
