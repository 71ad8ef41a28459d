"""Steps of a generation, told to who cannot take words back; and several of them as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backplane.ports.token_stream import Cursor
from gateway.asking import BegunAgain, told, whole
from gateway.merging import merged
from query_api.assembly import Step

NOWHERE = Cursor(0, 0)


def step(event: str, *words: str) -> Step:
    return Step(event, NOWHERE, words, {"model": "m"} if event.endswith("started") else {})


async def said(steps: Sequence[Step | Exception]) -> AsyncGenerator[Step, None]:
    for one in steps:
        await asyncio.sleep(0)
        if isinstance(one, Exception):
            raise one
        yield one


async def events(steps: Sequence[Step]) -> list[str]:
    return [one.event async for one in told(said(steps))]


async def test_a_restart_before_the_first_token_is_one_more_beginning() -> None:
    steps = [step("queued"), step("started"), step("restarted"), step("token", "a"), step("completed")]
    assert await events(steps) == ["started", "started", "token", "completed"]


async def test_a_restart_after_it_breaks_off() -> None:
    with pytest.raises(BegunAgain):
        await events([step("started"), step("token", "a"), step("restarted"), step("token", "b")])


async def test_the_whole_answer_has_nothing_that_is_void() -> None:
    steps = [step("started"), step("token", "a"), step("restarted"), step("token", "b", "c"), step("completed")]
    answer = await whole(said(steps))
    assert (answer.answer["content"], answer.is_complete, answer.served_model) == ("bc", True, "m")


@given(st.lists(st.lists(st.text(), max_size=5), min_size=1, max_size=4))
async def test_each_stream_keeps_its_order(words: list[list[str]]) -> None:
    streams = [said([step("token", word) for word in one]) for one in words]
    found: list[list[str]] = [[] for _ in words]
    async for number, one in merged(streams):
        found[number] += [str(delta) for delta in one.deltas]
    assert found == words


@pytest.mark.parametrize("others", [0, 2])
async def test_what_one_raises_is_raised_and_the_others_are_closed(others: int) -> None:
    closed: list[int] = []

    async def endless(number: int) -> AsyncGenerator[Step, None]:
        try:
            while True:
                await asyncio.sleep(0)
                yield step("token", "x")
        finally:
            closed.append(number)

    streams = [said([step("token", "a"), BegunAgain()]), *(endless(number) for number in range(others))]
    with pytest.raises(BegunAgain):
        async for _ in merged(streams):
            pass
    assert sorted(closed) == list(range(others))
