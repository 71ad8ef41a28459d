"""What the token stream on Redis does when Redis dies, comes back, hangs or is emptied."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import redis.asyncio
import uvloop
from redis.asyncio.connection import UnixDomainSocketConnection

from backplane.adapters.redis.frames import stream_name
from backplane.adapters.redis.hub import Hub
from backplane.adapters.redis.reader import RedisStreamReader
from backplane.adapters.redis.signals import RedisSignals
from backplane.adapters.redis.writer import RedisStreamWriter
from backplane.ports.token_stream import Cursor, Frame, Kind, StreamUnavailable
from tests.conftest import ValkeyServer, start_valkey
from tests.contract.token_stream.test_token_stream import TENANT, spread, token, until


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="parley-redis-", ignore_cleanup_errors=True) as made:
        yield Path(made)


@pytest.fixture
def own_valkey(folder: Path) -> Iterator[ValkeyServer]:
    running = start_valkey(folder / uuid4().hex[:8])
    yield running
    running.server.stop()


@asynccontextmanager
async def adapters(url: str) -> AsyncIterator[tuple[RedisStreamWriter, RedisStreamReader, RedisSignals]]:
    hub = Hub(url)
    writer, reader, signals = RedisStreamWriter(url), RedisStreamReader(url, hub), RedisSignals(url, hub)
    try:
        yield writer, reader, signals
    finally:
        await writer.close()
        await reader.close()
        await signals.close()
        await hub.close()


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.01)


async def written(writer: RedisStreamWriter, generation: UUID, seq: int) -> bool:
    """Write ``seq`` again until it arrives, since the writer may not know yet that Redis is back."""
    writer.append(TENANT, generation, token(seq))
    await writer.flush()
    try:
        return await writer.last(TENANT, generation) == Cursor(1, seq)
    except StreamUnavailable:
        return False


async def follows(reader: RedisStreamReader, generation: UUID) -> bool:
    """Whether the reader's own connection is back, too."""
    try:
        async with reader.follow(TENANT, generation):
            return True
    except StreamUnavailable:
        return False


async def test_killed_and_back(own_valkey: ValkeyServer) -> None:
    generation = uuid4()
    async with adapters(own_valkey.url) as (writer, reader, _):
        async with reader.follow(TENANT, generation) as live:
            writer.append(TENANT, generation, token(1))
            await until(live, Kind.TOKEN, 1)
            await writer.flush()  # what is heard may not be confirmed yet, and would count as dropped too
            own_valkey.server.kill()
            with pytest.raises(StreamUnavailable):
                async with asyncio.timeout(20):
                    await anext(live)
        for seq in range(2, 500):
            writer.append(TENANT, generation, token(seq))
        await writer.flush()
        with pytest.raises(StreamUnavailable):
            await reader.backlog(TENANT, generation)
        with pytest.raises(StreamUnavailable):
            await writer.last(TENANT, generation)
        with pytest.raises(StreamUnavailable):
            async with reader.follow(TENANT, generation):
                raise AssertionError("entered without Redis")
        assert writer.dropped == 498
        own_valkey.server.start()
        await eventually(lambda: written(writer, generation, 500))
        await eventually(lambda: follows(reader, generation))
        async with reader.follow(TENANT, generation) as live:
            writer.append(TENANT, generation, token(501))
            assert spread(await until(live, Kind.TOKEN, 501)) == spread([token(501)])
        assert 501 in {entry[2] for entry in spread(await reader.backlog(TENANT, generation))}


async def test_a_restart_while_nothing_is_written_loses_nothing(own_valkey: ValkeyServer) -> None:
    generation = uuid4()
    async with adapters(own_valkey.url) as (writer, reader, _):
        writer.append(TENANT, generation, token(1))
        await writer.flush()
        own_valkey.server.kill()
        own_valkey.server.start()
        writer.append(TENANT, generation, token(2))
        await writer.flush()
        assert spread(await reader.backlog(TENANT, generation)) == spread([token(2)])
        assert writer.dropped == 0


async def test_emptied(own_valkey: ValkeyServer) -> None:
    generation = uuid4()
    async with (
        adapters(own_valkey.url) as (writer, reader, _),
        redis.asyncio.Redis.from_url(own_valkey.url) as operator,
        reader.follow(TENANT, generation) as live,
    ):
        for seq in range(1, 300):
            writer.append(TENANT, generation, token(seq))
        await writer.flush()
        await operator.flushall()
        assert await writer.last(TENANT, generation) is None
        for seq in range(300, 700):
            writer.append(TENANT, generation, token(seq))
            await writer.flush()
        writer.append(TENANT, generation, Frame(Kind.COMPLETED, 1, 699))
        seen = [frame for frame in await until(live, Kind.COMPLETED, 699) if frame is not None]
        assert [entry[2] for entry in spread(seen)] == [*range(1, 700), 699]
        assert spread(await reader.backlog(TENANT, generation))[0][2] == 300


async def test_streams_expire(own_valkey: ValkeyServer) -> None:
    generation = uuid4()
    async with adapters(own_valkey.url) as (writer, _, _), redis.asyncio.Redis.from_url(own_valkey.url) as operator:
        name = stream_name(TENANT, generation)
        writer.append(TENANT, generation, Frame(Kind.STARTED, 1, 0))
        await writer.flush()
        assert 23 * 3600 < await operator.ttl(name) <= 24 * 3600
        await operator.flushall()
        for seq in range(2, 600):
            writer.append(TENANT, generation, token(seq))
            await writer.flush()
        assert 23 * 3600 < await operator.ttl(name) <= 24 * 3600
        writer.append(TENANT, generation, Frame(Kind.FAILED, 1, 599, detail={"reason": "r", "detail": "d"}))
        await writer.flush()
        assert 14 * 60 < await operator.ttl(name) <= 15 * 60


async def test_no_redis_at_all(folder: Path) -> None:
    generation = uuid4()
    async with adapters(f"unix://{folder}/nobody.sock") as (writer, reader, signals):
        writer.append(TENANT, generation, token(1))
        await writer.flush()
        assert writer.dropped == 1
        await signals.send("anything", "message")
        for _ in range(2):
            with pytest.raises(StreamUnavailable):
                async with reader.follow(TENANT, generation):
                    raise AssertionError("entered without Redis")
        async with signals.listen("anything"):
            pass


async def test_a_server_that_hangs_is_given_up(folder: Path) -> None:
    accepted = asyncio.Event()

    async def say_nothing(heard: asyncio.StreamReader, peer: asyncio.StreamWriter) -> None:
        accepted.set()
        await heard.read()
        peer.close()

    path = folder / "hangs.sock"
    server = await asyncio.start_unix_server(say_nothing, path)
    generation = uuid4()
    async with server, adapters(f"unix://{path}") as (writer, reader, _):
        writer.append(TENANT, generation, token(1))
        async with asyncio.timeout(10):
            await writer.flush()
            await accepted.wait()
            assert writer.dropped == 1
            with pytest.raises(StreamUnavailable):
                async with reader.follow(TENANT, generation):
                    raise AssertionError("entered without an answer")


async def test_what_is_over_capacity_is_dropped(own_valkey: ValkeyServer) -> None:
    generation = uuid4()
    writer = RedisStreamWriter(own_valkey.url, capacity=10)
    for seq in range(1, 26):
        writer.append(TENANT, generation, token(seq))
    await writer.flush()
    assert writer.dropped == 15
    assert await writer.last(TENANT, generation) == Cursor(1, 10)
    await writer.close()


async def test_a_frame_that_is_not_json_costs_only_itself(own_valkey: ValkeyServer) -> None:
    generation = uuid4()
    async with adapters(own_valkey.url) as (writer, reader, _):
        writer.append(TENANT, generation, token(1, "half \ud83d"))
        writer.append(TENANT, generation, token(3))
        await writer.flush()
        assert spread(await reader.backlog(TENANT, generation)) == spread([token(3)])
        assert writer.dropped == 1


async def test_a_full_redis_costs_only_what_it_refuses(own_valkey: ValkeyServer) -> None:
    generation = uuid4()
    async with (
        adapters(own_valkey.url) as (writer, reader, _),
        redis.asyncio.Redis.from_url(own_valkey.url) as operator,
    ):
        await operator.config_set("maxmemory", "1")
        writer.append(TENANT, generation, token(1))
        await writer.flush()
        assert writer.dropped > 0
        await operator.config_set("maxmemory", "0")
        writer.append(TENANT, generation, token(2))
        await writer.flush()
        assert spread(await reader.backlog(TENANT, generation)) == spread([token(2)])


async def test_an_entry_of_a_newer_release_sends_followers_to_postgres(own_valkey: ValkeyServer) -> None:
    generation = uuid4()
    async with (
        adapters(own_valkey.url) as (_, reader, _signals),
        redis.asyncio.Redis.from_url(own_valkey.url) as operator,
        reader.follow(TENANT, generation) as live,
    ):
        newer = b'["paused",1,3,[]]'
        await operator.xadd(stream_name(TENANT, generation), {"f": newer})
        await operator.publish(stream_name(TENANT, generation), newer)
        with pytest.raises(StreamUnavailable):
            await reader.backlog(TENANT, generation)
        with pytest.raises(StreamUnavailable):
            await anext(live)


async def test_signals_go_on_after_an_outage(own_valkey: ValkeyServer) -> None:
    async with adapters(own_valkey.url) as (_, _, signals), signals.listen("cancel") as heard:
        await signals.send("other", "not for us")
        await signals.send("cancel", "one")
        async with asyncio.timeout(20):
            assert await anext(heard) == "one"
        own_valkey.server.kill()
        await signals.send("cancel", "lost")
        own_valkey.server.start()

        async def keep_sending() -> None:
            while True:
                await signals.send("cancel", "two")
                await asyncio.sleep(0.02)

        sending = asyncio.create_task(keep_sending())
        async with asyncio.timeout(20):
            assert await anext(heard) == "two"
        sending.cancel()


class ClosedAtOnce(UnixDomainSocketConnection):
    """A server that is killed right after it greeted the client."""

    async def _connect(self) -> None:
        await super()._connect()  # type: ignore[no-untyped-call]
        assert self._writer is not None
        self._writer.transport.abort()
        while "closed=True" not in repr(self._writer.transport):
            await asyncio.sleep(0)


def test_a_connection_that_closes_before_it_is_written_to_is_an_outage(valkey_server: ValkeyServer) -> None:
    async def ask() -> None:
        hub = Hub(valkey_server.url)
        reader = RedisStreamReader(valkey_server.url, hub)
        reader._client.connection_pool.connection_class = ClosedAtOnce
        with pytest.raises(StreamUnavailable):
            await reader.backlog(TENANT, uuid4())
        await reader.close()
        await hub.close()

    # The services' own loop says it in its own way.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ask())
