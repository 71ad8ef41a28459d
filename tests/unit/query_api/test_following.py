"""Following a generation, against a Redis and a Postgres that fail in every way that hypothesis can think of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backplane.ports.token_stream import Cursor, Kind
from event_schemas.chat import text_of
from query_api.assembly import Step
from query_api.following import Follower, Pace
from tests.unit.query_api.truth import (
    GENERATION,
    TENANT,
    FlakyStream,
    LaggingRecord,
    Truth,
    check,
    delta,
    started,
    tokens,
)

PACE = Pace(without_stream=0.001, idle=0.002, longest_idle=0.004)
NEVER = Pace(without_stream=3600, idle=3600, longest_idle=3600)


class World:
    def __init__(self, cursor: Cursor | None = None, pace: Pace = PACE) -> None:
        self.truth = Truth()
        self.stream = FlakyStream()
        self.record = LaggingRecord(self.truth)
        self.cursor = cursor
        self.pace = pace
        self.steps: list[Step] = []

    def follower(self) -> Follower:
        return Follower(self.record, self.stream, TENANT, GENERATION, self.cursor, self.pace)

    async def follow(self) -> None:
        async for step in self.follower().steps():
            self.steps.append(step)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0)

    @property
    def text(self) -> str:
        return text_of(delta for step in self.steps for delta in step.deltas)


_operations = st.lists(
    st.one_of(
        st.tuples(
            st.just("write"), st.integers(1, 4), st.sampled_from(["fine", "lost", "kept", "sent", "twice", "late"])
        ),
        st.tuples(st.just("start"), st.booleans(), st.just("")),
        st.tuples(
            st.sampled_from(["redis_down", "redis_up", "empty", "missed", "late_arrives"]), st.just(0), st.just("")
        ),
        st.tuples(st.sampled_from(["postgres_down", "postgres_up"]), st.just(0), st.just("")),
        st.tuples(st.just("project"), st.integers(0, 6), st.just("")),
        st.tuples(st.just("breathe"), st.integers(1, 12), st.just("")),
    ),
    max_size=40,
)


async def _live_through(world: World, operations: list[tuple[str, int, str]], kind: Kind, told_by_redis: bool) -> None:
    truth, stream, record = world.truth, world.stream, world.record
    late = []
    for name, number, how in operations:
        match name:
            case "start" if truth.attempt < 4:
                frame = truth.start()
                if number and not stream.down:
                    stream.keep(frame)
                    stream.publish(frame)
            case "write" if truth.attempt:
                frame = truth.write(number)
                if stream.down or how == "lost":
                    continue
                if how in ("fine", "kept", "twice", "late"):
                    stream.keep(frame)
                if how in ("fine", "sent", "twice"):
                    stream.publish(frame)
                if how == "twice":
                    stream.keep(frame)
                    stream.publish(frame)
                if how == "late":
                    late.append(frame)
            case "late_arrives":
                for frame in reversed(late):
                    stream.publish(frame)
                late.clear()
            case "missed":
                stream.publish(None)
            case "empty":
                stream.kept.clear()
            case "redis_down":
                stream.go_down()
            case "redis_up":
                stream.down = False
            case "postgres_down":
                record.down = True
            case "postgres_up":
                record.down = False
            case "project":
                record.catch_up(number)
            case "breathe":
                for _ in range(number):
                    await asyncio.sleep(0)
    ending = truth.end(kind)
    if told_by_redis and not stream.down:
        stream.keep(ending)
        stream.publish(ending)
    record.down = False
    record.catch_up()


@settings(max_examples=400, deadline=None)
@given(_operations, st.sampled_from([Kind.COMPLETED, Kind.FAILED, Kind.CANCELLED]), st.booleans(), st.data())
def test_no_token_is_lost_doubled_or_swapped(
    operations: list[tuple[str, int, str]], kind: Kind, told_by_redis: bool, data: st.DataObject
) -> None:
    async def run() -> None:
        world = World()
        async with asyncio.timeout(20):
            following = asyncio.create_task(world.follow())
            await _live_through(world, operations, kind, told_by_redis)
            await following
        check(world.steps, None, world.truth)
        assert world.steps[-1].event == kind.value
        last_attempt = text_of(
            text for step in world.steps if step.cursor.attempt == world.truth.attempt for text in step.deltas
        )
        assert last_attempt == "".join(delta(world.truth.attempt, seq) for seq in range(1, world.truth.seq + 1))

        # Whoever was told any part of it and comes back, now or in the middle, is told exactly the rest.
        cut = data.draw(st.integers(0, len(world.steps) - 1))
        seen = world.steps[cut].cursor
        again = World(seen)
        again.truth, again.stream, again.record = world.truth, world.stream, world.record
        async with asyncio.timeout(20):
            await again.follow()
        check(again.steps, seen, world.truth)
        rest = [(step.cursor.attempt, text) for step in world.steps[cut + 1 :] for text in step.deltas]
        told = [(step.cursor.attempt, text) for step in again.steps for text in step.deltas]
        assert told == [entry for entry in rest if entry[0] == world.truth.attempt]

    asyncio.run(run())


@settings(max_examples=100, deadline=None)
@given(_operations, st.integers(0, 4), st.integers(0, 30))
def test_any_cursor_at_all_gets_the_rest_and_the_ending(
    operations: list[tuple[str, int, str]], attempt: int, seq: int
) -> None:
    async def run() -> None:
        world = World(Cursor(attempt, seq))
        async with asyncio.timeout(20):
            following = asyncio.create_task(world.follow())
            await _live_through(world, operations, Kind.COMPLETED, True)
            await following
        assert world.steps[-1].event == "completed"
        told = [(step.cursor.attempt, text) for step in world.steps for text in step.deltas]
        assert len(told) == len(set(told))
        if world.truth.attempt == attempt:
            assert [text for _, text in told] == [delta(attempt, n) for n in range(seq + 1, world.truth.seq + 1)]

    asyncio.run(run())


async def test_a_queued_one_says_so_and_goes_on_by_redis_alone() -> None:
    world = World(pace=NEVER)
    following = asyncio.create_task(world.follow())
    await world.until(lambda: bool(world.stream.inboxes) and world.stream.asked == 1)
    world.record.down = True
    for frame in (world.truth.start(), world.truth.write(2), world.truth.write(1), world.truth.end(Kind.COMPLETED)):
        world.stream.publish(frame)
    async with asyncio.timeout(20):
        await following
    assert [step.event for step in world.steps] == ["queued", "started", "token", "token", "completed"]
    assert [str(step.cursor) for step in world.steps] == ["0-0", "1-0", "1-2", "1-3", "1-3"]
    assert world.record.asked == 1


async def test_a_finished_one_is_told_by_postgres_alone() -> None:
    world = World()
    world.truth.start()
    world.truth.write(7)
    world.truth.end(Kind.COMPLETED)
    world.record.catch_up()
    world.stream.go_down()
    await world.follow()
    assert world.text == "".join(delta(1, seq) for seq in range(1, 8))
    assert [step.event for step in world.steps][-1] == "completed"
    assert world.stream.asked == 0


async def test_tokens_that_are_never_stored_come_from_redis_while_it_has_them() -> None:
    world = World()
    world.record.keeps_tokens = False
    for frame in (world.truth.start(), world.truth.write(3), world.truth.write(4), world.truth.end(Kind.COMPLETED)):
        world.stream.keep(frame)
    world.record.catch_up()
    async with asyncio.timeout(20):
        await world.follow()
    assert world.text == tokens_text(1, 1, 7)
    check(world.steps, None, world.truth)


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("cursor", [None, Cursor(1, 2), Cursor(1, 7), Cursor(0, 0)])
async def test_what_is_nowhere_any_more_ends_without_its_tokens(down: bool, cursor: Cursor | None) -> None:
    world = World(cursor)
    world.record.keeps_tokens = False
    world.truth.start()
    world.stream.keep(world.truth.write(1))
    world.truth.write(6)
    world.truth.end(Kind.COMPLETED)
    world.record.catch_up()
    if down:
        world.stream.go_down()
    async with asyncio.timeout(20):
        await world.follow()
    assert world.steps[-1].event == "completed"
    assert world.steps[-1].cursor == (1, 7)
    assert world.text == ("" if down or cursor in (Cursor(1, 2), Cursor(1, 7)) else tokens_text(1, 1, 1))


async def test_while_redis_is_down_postgres_is_asked_and_afterwards_redis_again() -> None:
    world = World()
    world.stream.go_down()
    following = asyncio.create_task(world.follow())
    world.truth.start()
    world.truth.write(3)
    world.record.catch_up()
    await world.until(lambda: world.text == tokens_text(1, 1, 3))
    world.record.down = True
    world.stream.down = False
    await world.until(lambda: bool(world.stream.inboxes))
    world.stream.publish(world.truth.write(2))
    await world.until(lambda: world.text == tokens_text(1, 1, 5))
    world.stream.publish(world.truth.end(Kind.CANCELLED))
    async with asyncio.timeout(20):
        await following
    assert world.steps[-1].event == "cancelled"


async def test_a_hole_is_filled_from_the_backlog_before_postgres() -> None:
    world = World(pace=NEVER)
    following = asyncio.create_task(world.follow())
    await world.until(lambda: bool(world.stream.inboxes) and world.stream.asked == 1)
    world.record.down = True
    world.stream.keep(world.truth.start())
    world.stream.keep(world.truth.write(3))
    world.stream.publish(world.truth.write(1))
    await world.until(lambda: world.text == tokens_text(1, 1, 4))
    world.stream.publish(world.truth.end(Kind.COMPLETED))
    async with asyncio.timeout(20):
        await following
    check(world.steps, None, world.truth)


async def test_who_was_too_slow_reads_the_backlog_again() -> None:
    world = World(pace=NEVER)
    following = asyncio.create_task(world.follow())
    await world.until(lambda: bool(world.stream.inboxes) and world.stream.asked == 1)
    world.stream.keep(world.truth.start())
    world.stream.keep(world.truth.write(3))
    world.stream.publish(None)
    await world.until(lambda: world.text == tokens_text(1, 1, 3))
    world.stream.publish(world.truth.end(Kind.COMPLETED))
    async with asyncio.timeout(20):
        await following


async def test_without_postgres_a_silent_redis_is_asked_for_all_it_has() -> None:
    world = World()
    following = asyncio.create_task(world.follow())
    await world.until(lambda: bool(world.stream.inboxes) and world.stream.asked == 1)
    world.record.down = True
    for frame in (world.truth.start(), world.truth.write(3), world.truth.end(Kind.COMPLETED)):
        world.stream.keep(frame)
    async with asyncio.timeout(20):
        await following
    check(world.steps, None, world.truth)


async def test_what_was_taken_in_before_redis_broke_is_told() -> None:
    world = World()
    following = asyncio.create_task(world.follow())
    await world.until(lambda: bool(world.stream.inboxes) and world.stream.asked == 1)
    world.truth.start()
    world.truth.write(3)
    hole_and_break = world.truth.write(1)
    world.stream.publish(hole_and_break)
    world.stream.down = True
    await world.until(lambda: not world.stream.inboxes)
    world.truth.end(Kind.COMPLETED)
    world.record.catch_up()
    async with asyncio.timeout(20):
        await following
    check(world.steps, None, world.truth)


async def test_a_lost_ending_is_learnt_from_postgres() -> None:
    world = World()
    following = asyncio.create_task(world.follow())
    await world.until(lambda: bool(world.stream.inboxes))
    world.stream.publish(world.truth.start())
    world.stream.publish(world.truth.write(2))
    await world.until(lambda: world.text == tokens_text(1, 1, 2))
    world.truth.end(Kind.FAILED)
    world.record.catch_up()
    async with asyncio.timeout(20):
        await following
    assert world.steps[-1].event == "failed"


async def test_a_restart_begins_from_nothing() -> None:
    world = World(pace=NEVER)
    following = asyncio.create_task(world.follow())
    await world.until(lambda: bool(world.stream.inboxes) and world.stream.asked == 1)
    first = [world.truth.start(), world.truth.write(5)]
    second = [world.truth.start(), world.truth.write(2)]
    zombie = tokens(1, 6, 9)
    for frame in (*first, *second, zombie, world.truth.end(Kind.COMPLETED)):
        world.stream.publish(frame)
    async with asyncio.timeout(20):
        await following
    assert [(step.event, str(step.cursor)) for step in world.steps] == [
        ("queued", "0-0"),
        ("started", "1-0"),
        ("token", "1-5"),
        ("restarted", "2-0"),
        ("token", "2-2"),
        ("completed", "2-2"),
    ]


async def test_a_cursor_ahead_of_everything_waits() -> None:
    world = World(Cursor(1, 5))
    following = asyncio.create_task(world.follow())
    await world.until(lambda: bool(world.stream.inboxes))
    world.stream.publish(world.truth.start())
    world.stream.publish(world.truth.write(4))
    asked = world.record.asked
    await world.until(lambda: world.record.asked > asked + 3)
    assert world.steps == []
    world.stream.publish(world.truth.write(3))
    await world.until(lambda: world.text == tokens_text(1, 6, 7))
    world.stream.publish(world.truth.end(Kind.COMPLETED))
    async with asyncio.timeout(20):
        await following
    check(world.steps, Cursor(1, 5), world.truth)


async def test_postgres_is_asked_less_and_less_while_nothing_happens() -> None:
    world = World(pace=Pace(without_stream=3600, idle=0.005, longest_idle=3600))
    following = asyncio.create_task(world.follow())
    await world.until(lambda: world.record.asked == 6)
    # 5 + 10 + 20 + 40 + 80 ms have passed; the next question is 160 ms away, and whatever arrives makes it near again.
    world.stream.publish(world.truth.start())
    await world.until(lambda: world.record.asked == 7)
    world.stream.publish(world.truth.end(Kind.COMPLETED))
    async with asyncio.timeout(20):
        await following


async def test_leaving_unsubscribes() -> None:
    world = World(pace=NEVER)
    steps = world.follower().steps()
    assert (await anext(steps)).event == "queued"
    waiting = asyncio.ensure_future(anext(steps))
    await world.until(lambda: bool(world.stream.inboxes))
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await steps.aclose()
    assert world.stream.inboxes == []


async def test_an_attempt_that_was_lost_may_end_with_less_than_was_seen() -> None:
    world = World(Cursor(3, 40))
    world.truth.attempt = 3
    world.truth.end(Kind.FAILED)
    world.record.catch_up()
    await world.follow()
    assert [(step.event, str(step.cursor)) for step in world.steps] == [("failed", "3-0")]


async def test_it_may_end_before_any_attempt() -> None:
    world = World()
    world.truth.end(Kind.CANCELLED)
    world.record.catch_up()
    await world.follow()
    assert [(step.event, str(step.cursor)) for step in world.steps] == [("cancelled", "0-0")]


def tokens_text(attempt: int, first: int, last: int) -> str:
    return text_of(tokens(attempt, first, last).deltas)


def test_the_model_of_these_tests_tells_deltas_apart() -> None:
    assert started(1).deltas == ()
    assert len({delta(attempt, seq) for attempt in range(1, 5) for seq in range(1, 50)}) == 4 * 49
