"""Who gets which slot, and whose what was read there is."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.inference.slot_numbers import SlotNumbers


async def _read(numbers: SlotNumbers, name: str | None) -> int:
    """One answer, from its beginning to its end."""
    number = await numbers.take(name)
    numbers.has_read(number)
    numbers.give_back(number)
    return number


async def _soon(coming: asyncio.Task[int] | asyncio.Task[int | None]) -> int | None:
    async with asyncio.timeout(5):
        return await coming


async def test_the_slot_that_was_used_longest_ago_comes_first() -> None:
    numbers = SlotNumbers(3)
    assert [await _read(numbers, name) for name in ("a", "b", "c", "d")] == [0, 1, 2, 0]
    assert await numbers.take_back("a") is None, "another one reads where it was"
    assert await numbers.take_back("b") == 1
    assert await numbers.take_back("b") is None, "it is gone with it"
    numbers.give_back(1)
    assert await _read(numbers, None) == 2


async def test_a_name_stands_for_the_newest_slot_alone() -> None:
    numbers = SlotNumbers(2)
    assert [await _read(numbers, "a") for _ in range(2)] == [0, 1]
    assert await numbers.take_back("a") == 1
    assert await numbers.take_back("a") is None


async def test_what_was_not_read_has_no_name() -> None:
    numbers = SlotNumbers(2)
    assert await _read(numbers, "a") == 0
    assert await numbers.take("b") == 1
    numbers.give_back(1)
    assert await numbers.take_back("b") is None
    assert await numbers.take_back("a") == 0


async def test_counting_disturbs_nothing() -> None:
    numbers = SlotNumbers(2)
    assert [await _read(numbers, name) for name in ("a", "b")] == [0, 1]
    borrowed = await numbers.borrow()
    assert borrowed == 1, "the one that is wanted last"
    numbers.give_back(borrowed)
    assert await _read(numbers, "c") == 0
    assert await numbers.take_back("b") == 1


async def test_who_wants_what_was_read_goes_before_who_wants_any_slot() -> None:
    numbers = SlotNumbers(1)
    assert await numbers.take("a") == 0
    numbers.has_read(0)
    any_slot = asyncio.create_task(numbers.take("b"))
    its_slot = asyncio.create_task(numbers.take_back("a"))
    await asyncio.sleep(0)
    assert not its_slot.done(), "an answer reads there"
    numbers.give_back(0)
    assert await _soon(its_slot) == 0
    assert not any_slot.done()
    numbers.give_back(0)
    assert await _soon(any_slot) == 0


async def test_who_waited_for_what_was_never_read_gets_nothing_and_keeps_nobody_waiting() -> None:
    numbers = SlotNumbers(1)
    assert await numbers.take("a") == 0
    its_slot = asyncio.create_task(numbers.take_back("a"))
    await asyncio.sleep(0)
    numbers.give_back(0)
    assert await _soon(its_slot) is None
    assert await numbers.take() == 0


@pytest.mark.parametrize("given_first", [False, True])
async def test_who_gives_up_waiting_leaves_the_slot_to_others(*, given_first: bool) -> None:
    numbers = SlotNumbers(1)
    assert await numbers.take("a") == 0
    waiting = asyncio.create_task(numbers.take("b"))
    await asyncio.sleep(0)
    if given_first:
        numbers.give_back(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    if not given_first:
        numbers.give_back(0)
    assert await _soon(asyncio.create_task(numbers.take("c"))) == 0


steps = st.lists(
    st.tuples(st.sampled_from(["take", "borrow", "back", "read", "free", "give up"]), st.integers(0, 5)), max_size=60
)


@settings(deadline=None)
@given(st.integers(1, 3), steps)
def test_no_slot_is_with_two_and_none_is_lost(count: int, todo: list[tuple[str, int]]) -> None:
    async def play() -> None:
        numbers = SlotNumbers(count)
        held: dict[int, str | None] = {}
        last_read: dict[int, str | None] = {}
        waiting: list[tuple[asyncio.Task[int | None], str, str]] = []

        async def ask(what: str, name: str) -> int | None:
            if what == "take":
                return await numbers.take(name)
            return await (numbers.borrow() if what == "borrow" else numbers.take_back(name))

        async def settled() -> None:
            for _ in range(4):
                await asyncio.sleep(0)
            for task, kind, name in [one for one in waiting if one[0].done()]:
                waiting.remove((task, kind, name))
                if task.cancelled() or (number := task.result()) is None:
                    continue
                assert number not in held, "somebody else uses it"
                if kind == "back":
                    assert last_read.get(number) == name, "something else was read there"
                    last_read[number] = None
                held[number] = name if kind == "take" else None

        for what, which in todo:
            name = f"n{which}"
            if what in ("take", "borrow", "back"):
                waiting.append((asyncio.create_task(ask(what, name)), what, name))
            elif what == "read" and which in held and held[which] is not None:
                numbers.has_read(which)
                last_read[which] = held[which]
            elif what == "free" and which in held:
                del held[which]
                numbers.give_back(which)
            elif what == "give up" and waiting:
                waiting[which % len(waiting)][0].cancel()
            await settled()
        while held or waiting:
            for number in list(held):
                del held[number]
                numbers.give_back(number)
            await settled()
        assert sorted([await numbers.take() for _ in range(count)]) == list(range(count))

    asyncio.run(play())
