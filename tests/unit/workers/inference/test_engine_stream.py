from __future__ import annotations

import asyncio
import threading

from workers.inference.engine_stream import EngineStream, Receive

DEADLINE_S = 5


async def _read(stream: EngineStream) -> list[str]:
    chunks: list[str] = []
    async with asyncio.timeout(DEADLINE_S):
        while (chunk := await stream.next_chunk()) is not None:
            chunks.append(chunk)
    return chunks


async def test_nothing_is_lost_or_swapped() -> None:
    def complete(receive: Receive) -> None:
        for n in range(20_000):
            assert not receive(str(n))

    ended: list[EngineStream] = []
    stream = EngineStream(complete, ended.append)
    stream.start()
    assert await _read(stream) == [str(n) for n in range(20_000)]
    assert ended == [stream]


async def test_stopping_ends_the_engine_at_its_next_chunk() -> None:
    stopped = threading.Event()

    def complete(receive: Receive) -> None:
        while not receive("x"):
            pass
        stopped.set()

    over = asyncio.Event()
    stream = EngineStream(complete, lambda _: over.set())
    stream.start()
    assert await stream.next_chunk() == "x"
    stream.stop()
    async with asyncio.timeout(DEADLINE_S):
        await over.wait()
    assert stopped.is_set()


async def test_a_failure_of_the_engine_is_kept() -> None:
    def complete(receive: Receive) -> None:
        receive("x")
        raise RuntimeError("broken")

    stream = EngineStream(complete, lambda _: None)
    stream.start()
    assert await _read(stream) == ["x"]
    assert isinstance(stream.failure, RuntimeError)


def test_a_closed_loop_stops_the_engine() -> None:
    go_on, stopped = threading.Event(), threading.Event()

    def complete(receive: Receive) -> None:
        go_on.wait(DEADLINE_S)
        receive("nobody hears this")
        if receive("nor this"):
            stopped.set()

    async def begin() -> EngineStream:
        stream = EngineStream(complete, lambda _: None)
        stream.start()
        return stream

    stream = asyncio.run(begin())
    go_on.set()
    stream.join(DEADLINE_S)
    assert stopped.is_set()
