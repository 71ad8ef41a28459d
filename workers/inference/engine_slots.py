"""The slots of an engine that computes in threads of this process: who runs, who waits, and how it all ends."""

from __future__ import annotations

import asyncio
import atexit
import time
from collections.abc import Callable

from workers.inference.engine_stream import EngineStream, Receive
from workers.inference.port import BackendUnavailable

_EXIT_WAIT_S = 2.0


class EngineSlots:
    """``count`` completions at a time, each in a thread of its own; the others wait their turn."""

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)
        self._open = False
        self._streams: set[EngineStream] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def open(self) -> None:
        self._open = True
        # An engine thread that the interpreter's end finds in the engine aborts the process.
        atexit.register(self._abandon)

    def check_open(self) -> None:
        """Raises BackendUnavailable ``engine_closed``."""
        if not self._open:
            raise BackendUnavailable("engine_closed", "the engine is not running; it was closed or never started")

    async def begin(self, complete: Callable[[Receive], None]) -> EngineStream:
        """Run ``complete``, which blocks, as soon as a slot is free. Raises BackendUnavailable ``engine_closed``.

        The slot is free again once ``complete`` has returned, so whoever reads the stream has to stop it.
        """
        self.check_open()
        await self._free.acquire()
        try:
            self.check_open()
            stream = EngineStream(complete, self._ended)
            stream.start()
        except BaseException:
            self._free.release()
            raise
        self._streams.add(stream)
        self._idle.clear()
        return stream

    async def close(self) -> None:
        """Stop what runs, and wait until it has let go of the engine."""
        self._open = False
        for stream in self._streams:
            stream.stop()
        await self._idle.wait()
        atexit.unregister(self._abandon)

    def _ended(self, stream: EngineStream) -> None:
        self._streams.discard(stream)
        self._free.release()
        if not self._streams:
            self._idle.set()

    def _abandon(self) -> None:
        streams = list(self._streams)
        for stream in streams:
            stream.stop()
        deadline = time.monotonic() + _EXIT_WAIT_S
        for stream in streams:
            stream.join(max(0.0, deadline - time.monotonic()))
