"""What every token stream does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from uuid import UUID, uuid4

import pytest

from backplane.ports.token_stream import Cursor, Frame, Kind
from event_schemas.chat import Piece
from tests.contract.token_stream.conftest import BUFFERED, Streams

TENANT = uuid4()


def token(seq: int, *deltas: str, attempt: int = 1) -> Frame:
    return Frame(Kind.TOKEN, attempt, seq, deltas or (f"d{seq}",))


def spread(frames: Iterable[Frame | None]) -> list[tuple[Kind, int, int, Piece]]:
    """One entry a delta, since an adapter may join runs of tokens."""
    flat: list[tuple[Kind, int, int, Piece]] = []
    for frame in frames:
        assert frame is not None
        if frame.kind is not Kind.TOKEN:
            flat.append((frame.kind, frame.attempt, frame.seq, ""))
        first = frame.seq - len(frame.deltas) + 1
        flat += [(Kind.TOKEN, frame.attempt, first + place, delta) for place, delta in enumerate(frame.deltas)]
    return flat


async def until(live: AsyncIterator[Frame | None], kind: Kind, seq: int) -> list[Frame | None]:
    """Frames up to the one of ``kind`` that reaches ``seq``."""
    seen: list[Frame | None] = []
    async with asyncio.timeout(20):
        async for frame in live:
            seen.append(frame)
            if frame is not None and frame.kind is kind and frame.seq >= seq:
                return seen
    raise AssertionError("the stream ended")


@pytest.fixture
def generation() -> UUID:
    return uuid4()


async def test_nothing_written_is_an_empty_backlog(streams: Streams, generation: UUID) -> None:
    assert await streams.reader.backlog(TENANT, generation) == []
    assert await streams.writer.last(TENANT, generation) is None


async def test_the_backlog_has_every_frame_in_order(streams: Streams, generation: UUID) -> None:
    frames = [
        Frame(Kind.STARTED, 1, 0, detail={"model": "m"}),
        token(1, "Grüße"),
        token(3, " 👋", ' "\n'),
        token(1, "again", attempt=2),
        Frame(Kind.COMPLETED, 2, 1, detail={"usage": {"input_tokens": 3}}),
    ]
    for frame in frames:
        streams.writer.append(TENANT, generation, frame)
    await streams.writer.flush()
    kept = await streams.reader.backlog(TENANT, generation)
    assert spread(kept) == spread(frames)
    assert kept[0].detail == {"model": "m"}
    assert kept[-1].detail == {"usage": {"input_tokens": 3}}


async def test_gaps_stay_gaps(streams: Streams, generation: UUID) -> None:
    frames = [token(1), token(2), token(7), token(8)]
    for frame in frames:
        streams.writer.append(TENANT, generation, frame)
    await streams.writer.flush()
    assert spread(await streams.reader.backlog(TENANT, generation)) == spread(frames)


async def test_last_is_the_newest_token(streams: Streams, generation: UUID) -> None:
    streams.writer.append(TENANT, generation, token(1))
    streams.writer.append(TENANT, generation, token(3, "a", "b"))
    for _ in range(100):
        streams.writer.append(TENANT, generation, Frame(Kind.STARTED, 2, 0))
    await streams.writer.flush()
    assert await streams.writer.last(TENANT, generation) == Cursor(1, 3)


async def test_a_stream_without_tokens_has_no_last(streams: Streams, generation: UUID) -> None:
    for _ in range(64):
        streams.writer.append(TENANT, generation, Frame(Kind.STARTED, 1, 0))
    await streams.writer.flush()
    assert await streams.writer.last(TENANT, generation) is None


async def test_followers_see_what_is_written_after_they_entered(streams: Streams, generation: UUID) -> None:
    streams.writer.append(TENANT, generation, token(1))
    await streams.writer.flush()
    async with streams.reader.follow(TENANT, generation) as live:
        written = [token(seq) for seq in range(2, 40)]
        for frame in written:
            streams.writer.append(TENANT, generation, frame)
        streams.writer.append(TENANT, generation, Frame(Kind.COMPLETED, 1, 39))
        assert spread(await until(live, Kind.COMPLETED, 39)) == spread([*written, Frame(Kind.COMPLETED, 1, 39)])


async def test_backlog_and_tail_leave_no_hole(streams: Streams, generation: UUID) -> None:
    async def write() -> None:
        for seq in range(1, 301):
            streams.writer.append(TENANT, generation, token(seq))
            if seq % 3 == 0:
                await streams.writer.flush()

    writing = asyncio.create_task(write())
    async with streams.reader.follow(TENANT, generation) as live:
        seen = {entry[2] for entry in spread(await streams.reader.backlog(TENANT, generation))}
        async with asyncio.timeout(20):
            while len(seen) < 300:
                frame = await anext(live)
                again = [frame] if frame else await streams.reader.backlog(TENANT, generation)
                seen |= {entry[2] for entry in spread(again)}
    await writing
    assert seen == set(range(1, 301))


async def test_a_pending_anext_may_be_cancelled(streams: Streams, generation: UUID) -> None:
    async with streams.reader.follow(TENANT, generation) as live:
        seen: list[Frame | None] = []

        async def write() -> None:
            for seq in range(1, 101):
                streams.writer.append(TENANT, generation, token(seq))
                await streams.writer.flush()

        writing = asyncio.create_task(write())
        async with asyncio.timeout(20):
            while not seen or seen[-1] is None or seen[-1].seq < 100:
                try:
                    async with asyncio.timeout(0.0002):
                        seen.append(await anext(live))
                except TimeoutError:
                    continue
        await writing
    assert spread(seen) == spread(token(seq) for seq in range(1, 101))


async def test_a_slow_follower_is_told_to_read_again(streams: Streams, generation: UUID) -> None:
    async with streams.reader.follow(TENANT, generation) as live:
        # Gaps everywhere, so that no adapter can join them.
        for seq in range(1, 4 * BUFFERED, 2):
            streams.writer.append(TENANT, generation, token(seq))
        streams.writer.append(TENANT, generation, Frame(Kind.COMPLETED, 1, 999))
        await streams.writer.flush()
        async with streams.reader.follow(TENANT, generation) as other:
            # What another follower sees of a later frame, this one's buffer has been offered too.
            streams.writer.append(TENANT, generation, Frame(Kind.COMPLETED, 1, 1000))
            await until(other, Kind.COMPLETED, 1000)
        seen = await until(live, Kind.COMPLETED, 1000)
    assert None in seen
    assert len(seen) <= BUFFERED + 1


async def test_tenants_and_generations_are_apart(streams: Streams, generation: UUID) -> None:
    async with streams.reader.follow(TENANT, generation) as live:
        streams.writer.append(uuid4(), generation, token(1, "another tenant"))
        streams.writer.append(TENANT, uuid4(), token(1, "another generation"))
        await streams.writer.flush()
        streams.writer.append(TENANT, generation, token(1, "mine"))
        assert spread(await until(live, Kind.TOKEN, 1)) == [(Kind.TOKEN, 1, 1, "mine")]
    assert spread(await streams.reader.backlog(TENANT, generation)) == [(Kind.TOKEN, 1, 1, "mine")]


async def test_two_hundred_followers_see_the_same(streams: Streams, generation: UUID) -> None:
    frames = [token(seq) for seq in range(1, 31)]
    entered = asyncio.Barrier(201)

    async def follow() -> list[tuple[Kind, int, int, Piece]]:
        async with streams.reader.follow(TENANT, generation) as live:
            await entered.wait()
            return spread(await until(live, Kind.COMPLETED, 30))

    following = [asyncio.create_task(follow()) for _ in range(200)]
    async with asyncio.timeout(20):
        await entered.wait()
    for frame in [*frames, Frame(Kind.COMPLETED, 1, 30)]:
        streams.writer.append(TENANT, generation, frame)
    for seen in await asyncio.gather(*following):
        assert seen == spread([*frames, Frame(Kind.COMPLETED, 1, 30)])


async def test_entering_and_leaving_at_once_loses_nothing(streams: Streams, generation: UUID) -> None:
    for turn in range(1, 51):
        async with streams.reader.follow(TENANT, generation):
            pass
        async with streams.reader.follow(TENANT, generation) as live:
            streams.writer.append(TENANT, generation, token(turn))
            assert spread(await until(live, Kind.TOKEN, turn)) == spread([token(turn)])


async def test_a_cancelled_follower_does_not_disturb_others(streams: Streams, generation: UUID) -> None:
    async def enter_and_stay() -> None:
        async with streams.reader.follow(TENANT, uuid4()) as live:
            await anext(live)

    async with streams.reader.follow(TENANT, generation) as live:
        hasty = [asyncio.create_task(enter_and_stay()) for _ in range(50)]
        for turn, task in enumerate(hasty):
            if turn % 2:
                await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(*hasty, return_exceptions=True)
        streams.writer.append(TENANT, generation, token(1))
        assert spread(await until(live, Kind.TOKEN, 1)) == spread([token(1)])


async def test_what_is_erased_is_gone_and_others_stay(streams: Streams) -> None:
    gone, never, kept, elsewhere = uuid4(), uuid4(), uuid4(), uuid4()
    for tenant, generation in ((TENANT, gone), (TENANT, kept), (elsewhere, gone)):
        streams.writer.append(tenant, generation, token(1, "what was said"))
    await streams.writer.flush()
    await streams.eraser.erase(TENANT, [gone, never])
    await streams.eraser.erase(TENANT, [])
    assert await streams.reader.backlog(TENANT, gone) == []
    assert spread(await streams.reader.backlog(TENANT, kept)) == [(Kind.TOKEN, 1, 1, "what was said")]
    assert spread(await streams.reader.backlog(elsewhere, gone)) == [(Kind.TOKEN, 1, 1, "what was said")]
