"""A moving deadline: it ends the wait that is due, and no other."""

from __future__ import annotations

import asyncio

import pytest

from backplane.ports.alarm import Alarm

SOON, NEVER = 0.02, 3600.0


def at(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def test_what_comes_in_time_is_given() -> None:
    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    alarm = Alarm()
    assert await alarm.before(at(NEVER), answer()) == 42
    alarm.stop()


async def test_it_rings_at_the_deadline_again_and_again() -> None:
    alarm = Alarm()
    async with asyncio.timeout(10):
        for _ in range(3):
            deadline = at(SOON)
            with pytest.raises(TimeoutError):
                await alarm.before(deadline, forever())
            assert at(0) >= deadline


async def test_a_wait_that_is_over_moves_the_deadline() -> None:
    alarm = Alarm()
    async with asyncio.timeout(10):
        await alarm.before(at(SOON), asyncio.sleep(0))
        later = at(SOON * 4)
        with pytest.raises(TimeoutError):
            await alarm.before(later, forever())
        assert at(0) >= later


async def test_an_earlier_deadline_rings_earlier() -> None:
    alarm = Alarm()
    async with asyncio.timeout(10):
        await alarm.before(at(NEVER), asyncio.sleep(0))
        with pytest.raises(TimeoutError):
            await alarm.before(at(SOON), forever())


async def test_between_two_waits_nobody_is_disturbed() -> None:
    alarm = Alarm()
    await alarm.before(at(SOON), asyncio.sleep(0))
    await asyncio.sleep(SOON * 3)
    await alarm.before(at(NEVER), asyncio.sleep(SOON))
    alarm.stop()


async def test_who_is_cancelled_is_cancelled() -> None:
    alarm = Alarm()
    waiting = asyncio.create_task(alarm.before(at(NEVER), forever()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    alarm.stop()


async def test_a_cancel_beside_the_ring_is_not_lost() -> None:
    alarm = Alarm()
    task = asyncio.create_task(alarm.before(at(NEVER), forever()))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(task.cancel)
    alarm._deadline = 0.0
    alarm._ring()
    with pytest.raises(asyncio.CancelledError):
        await task
    alarm.stop()


async def test_a_wait_may_be_bounded_from_outside_too() -> None:
    alarm = Alarm()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(SOON):
            await alarm.before(at(NEVER), forever())
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0
    alarm.stop()


async def test_who_answers_a_ring_with_an_error_or_a_value_is_not_being_cancelled() -> None:
    async def with_an_error() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            raise LookupError from None

    async def with_a_value() -> int:
        try:
            await forever()
        except asyncio.CancelledError:
            return 42
        raise AssertionError

    alarm, current = Alarm(), asyncio.current_task()
    assert current is not None
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(SOON * 4):
            with pytest.raises(LookupError):
                await alarm.before(at(SOON), with_an_error())
            assert current.cancelling() == 0
            assert await alarm.before(at(SOON), with_a_value()) == 42
            assert current.cancelling() == 0
            await forever()
