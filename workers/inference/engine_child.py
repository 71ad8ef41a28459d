"""The process of one engine: it serves one worker over a socket, and ends when the worker lets go of it.

Run as ``python -m workers.inference.engine_child SOCKET``, where SOCKET is the number of an inherited socket.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from contextlib import aclosing, suppress
from functools import partial

from backplane.settings import LlmSettings, PoolSettings
from workers.inference import engine_wire as wire
from workers.inference.port import Backend, BackendError, BackendUnavailable, Delta, Finished, InferenceRequest
from workers.inference.registry import make_backend

Tell = Callable[..., None]


async def serve(descriptor: int) -> None:
    """Load what the worker names, and answer what it asks, until it closes the socket or is gone."""
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=descriptor))
    loop = asyncio.get_running_loop()

    def tell(*frame: object) -> None:
        if not writer.is_closing():
            writer.write(wire.packed(*frame))

    def progress(doing: str, share: float) -> None:
        loop.call_soon_threadsafe(tell, "progress", doing, share)

    order = await wire.read_frame(reader)
    if order is None:
        return
    _, name, pool, llm = order
    backend = make_backend(name, PoolSettings.model_validate(pool), LlmSettings.model_validate(llm))
    try:
        await backend.start(progress)
    except BackendError as error:
        tell("broken", 0, *wire.from_error(error))
    else:
        tell("ready")
        await _answer_all(backend, reader, tell)
        await backend.close()
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def _answer_all(backend: Backend, reader: asyncio.StreamReader, tell: Tell) -> None:
    running: dict[int, asyncio.Task[None]] = {}
    while (frame := await wire.read_frame(reader)) is not None:
        match frame:
            case ["ask", number, told]:
                _begin(running, number, _answer(backend, number, wire.to_request(told), tell), tell)
            case ["count", number, told]:
                _begin(running, number, _count(backend, number, wire.to_request(told), tell), tell)
            case ["stop", number] if number in running:
                running[number].cancel()
    for task in running.values():
        task.cancel()


def _begin(running: dict[int, asyncio.Task[None]], number: int, work: Coroutine[None, None, None], tell: Tell) -> None:
    task = running[number] = asyncio.create_task(_telling_faults(work, number, tell))
    task.add_done_callback(partial(_forget, running, number))


def _forget(running: dict[int, asyncio.Task[None]], number: int, task: asyncio.Task[None]) -> None:
    del running[number]


async def _answer(backend: Backend, number: int, request: InferenceRequest, tell: Tell) -> None:
    async with aclosing(backend.generate(request)) as items:
        async for item in items:
            match item:
                case Delta():
                    tell("delta", number, *item)
                case Finished():
                    tell("finished", number, *wire.from_finished(item))
                case _:
                    raise TypeError(f"a local engine gave {type(item).__name__}")


async def _count(backend: Backend, number: int, request: InferenceRequest, tell: Tell) -> None:
    counted = await backend.count(request)
    if counted is None:
        raise TypeError("a local engine did not count")
    tell("counted", number, counted.tokens, counted.window)


async def _telling_faults(work: Coroutine[None, None, None], number: int, tell: Tell) -> None:
    try:
        await work
    except BackendError as error:
        tell("broken", number, *wire.from_error(error))
    except Exception as bug:
        broken = BackendUnavailable("backend_error", f"the backend raised {type(bug).__name__}")
        tell("broken", number, *wire.from_error(broken))
        raise


if __name__ == "__main__":
    # A Ctrl-C at the terminal reaches the whole group; what runs here is the worker's to end.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    asyncio.run(serve(int(sys.argv[1])))
