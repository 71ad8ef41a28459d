"""Who shares a call, and what becomes of one that nobody waits for any more."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from backplane.ports.single_flight import SingleFlight


class Calls:
    """Calls that end when they are told to."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.may_end = asyncio.Event()

    async def __call__(self, key: str) -> str:
        self.made.append(key)
        await self.may_end.wait()
        if key == "bad":
            raise LookupError(key)
        return key.upper()


async def test_those_who_ask_at_the_same_time_share_a_call_and_go_on_in_order() -> None:
    calls = Calls()
    flight = SingleFlight(calls)
    order: list[int] = []

    async def ask(number: int) -> str:
        value = await flight.get("a")
        order.append(number)
        return value

    asking = [asyncio.create_task(ask(number)) for number in range(10)]
    other = asyncio.create_task(flight.get("b"))
    await asyncio.sleep(0)
    calls.may_end.set()
    assert await asyncio.gather(*asking, other) == ["A"] * 10 + ["B"]
    assert order == list(range(10))
    assert calls.made == ["a", "b"]
    assert await flight.get("a") == "A"
    assert calls.made == ["a", "b", "a"]


async def test_all_hear_what_went_wrong_and_one_who_is_cancelled_takes_no_other_with_it() -> None:
    calls = Calls()
    flight = SingleFlight(calls)
    impatient, patient = (asyncio.create_task(flight.get("bad")) for _ in range(2))
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.sleep(0)
    calls.may_end.set()
    with pytest.raises(LookupError):
        await patient
    assert impatient.cancelled()


async def test_what_fails_when_nobody_waits_any_more_is_nobodys_fault() -> None:
    calls = Calls()
    flight = SingleFlight(calls)
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    impatient = asyncio.create_task(flight.get("bad"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.gather(impatient, return_exceptions=True)
    calls.may_end.set()
    for _ in range(5):
        await asyncio.sleep(0)
    await flight.settled()
    gc.collect()
    assert complaints == []
