"""An engine in a process of its own, so that loading it stops nobody else's stream, and unloading it gives all of its
memory back, whatever the engine may have kept."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from itertools import count
from typing import Literal

from backplane.settings import LlmSettings, PoolSettings
from workers.inference import engine_wire as wire
from workers.inference.port import BackendError, BackendUnavailable, Counted, Delta, InferenceRequest, Item, Progress

_END_S = 10.0


class EngineProcess:
    """The backend of a pool, run by a child process."""

    def __init__(self, name: str, pool: PoolSettings, llm: LlmSettings) -> None:
        self._order = ("serve", name, pool.model_dump(mode="json", exclude_none=True), llm.model_dump(mode="json"))
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None
        self._numbers = count(1)
        self._frames: dict[int, asyncio.Queue[wire.Frame | None]] = {}
        self._closing = False

    @property
    def pid(self) -> int | None:
        """Of the child process, None while there is none."""
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    @property
    def lost(self) -> bool:
        """It was started, and its process has ended by itself."""
        return self._listening is not None and self._listening.done()

    async def start(self, progress: Progress) -> None:
        """Start the process and load the engine there. Raises BackendUnavailable."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                reader, self._writer = await asyncio.open_unix_connection(sock=ours)
                self._process = await asyncio.create_subprocess_exec(
                    # -P: a folder named like one of ours in the working directory must not be imported instead.
                    *(sys.executable, "-P", "-m", "workers.inference.engine_child", str(theirs.fileno())),
                    # Secrets reach only who needs them.
                    env={name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")},
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                )
            self._writer.write(wire.packed(*self._order))
            await self._loaded(reader, progress)
        except BaseException as error:
            self._closing = True
            if self._writer is not None:
                self._writer.close()
            if self._process is not None:
                # An engine that says why it does not start ends by itself.
                await (self._end() if isinstance(error, BackendError) else self._kill())
            if not isinstance(error, OSError):
                raise
            raise BackendUnavailable("engine_failed", f"no process for the engine could be started: {error}") from error
        self._listening = asyncio.create_task(self._listen(reader))

    async def generate(self, request: InferenceRequest) -> AsyncGenerator[Item]:
        async with aclosing(self._told("ask", request)) as told:
            async for frame in told:
                match frame:
                    case ["delta", _, text, tokens]:
                        yield Delta(text, tokens)
                    case ["finished", _, *ending]:
                        yield wire.to_finished(ending)
                        return

    async def count(self, request: InferenceRequest) -> Counted:
        async with aclosing(self._told("count", request)) as told:
            _, _, tokens, window = await anext(told)
            return Counted(tokens, window)

    async def _told(self, what: Literal["ask", "count"], request: InferenceRequest) -> AsyncGenerator[wire.Frame]:
        """What the engine says to ``request``, without end. Raises RequestRefused, BackendUnavailable."""
        if self._writer is None or self._closing or self.lost:
            raise await self._gone()
        number = next(self._numbers)
        frames = self._frames[number] = asyncio.Queue()
        try:
            self._writer.write(wire.question(what, number, request))
            while True:
                match await frames.get():
                    case ["broken", _, kind, reason, message]:
                        raise wire.to_error(kind, reason, message)
                    case None:
                        raise await self._gone()
                    case frame:
                        yield frame
        finally:
            del self._frames[number]
            if not self._writer.is_closing():
                self._writer.write(wire.packed("stop", number))

    async def close(self) -> None:
        """End the process. When this returns, its memory is free."""
        self._closing = True
        if self._writer is not None:
            self._writer.close()
        if self._process is None:
            return
        await self._end()
        if self._listening is not None:
            await self._listening

    async def _loaded(self, reader: asyncio.StreamReader, progress: Progress) -> None:
        while True:
            match await wire.read_frame(reader):
                case ["progress", doing, share]:
                    progress(doing, share)
                case ["ready"]:
                    return
                case ["broken", _, kind, reason, message]:
                    raise wire.to_error(kind, reason, message)
                case _:
                    raise await self._gone()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while (frame := await wire.read_frame(reader)) is not None:
            if frame[1] in self._frames:
                self._frames[frame[1]].put_nowait(frame)
        if not self._closing:
            await self._end()
        for frames in self._frames.values():
            frames.put_nowait(None)

    async def _end(self) -> None:
        """Wait for a process that ends by itself: one that is killed as it ends is reaped by the call that signals it,
        and asyncio then knows no exit code (https://github.com/python/cpython/issues/87744)."""
        assert self._process is not None
        try:
            await asyncio.wait_for(self._process.wait(), _END_S)
        except TimeoutError:
            await self._kill()

    async def _kill(self) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def _gone(self) -> BackendError:
        if self._closing or self._process is None:
            return BackendUnavailable("engine_closed", "the engine is not running; it was closed or never started")
        code = await self._process.wait()
        return BackendUnavailable(
            "engine_lost",
            f"the engine's process ended with code {code}; -9 is often the system's, for want of memory: give the pool "
            "a smaller memory_limit, fewer slots or a smaller window",
        )
