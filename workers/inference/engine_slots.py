"""The slots of an engine that computes in threads of this process: who runs, who waits, and how it all ends."""

from __future__ import annotations

import asyncio
import atexit
import time
from collections.abc import Callable
from functools import partial

from workers.inference.engine_stream import EngineStream, Receive
from workers.inference.port import BackendUnavailable
from workers.inference.slot_numbers import SlotNumbers

_EXIT_WAIT_S = 2.0

Complete = Callable[[int, Receive], None]
"""Computes in the slot of this number. Blocks."""


class EngineSlots:
    """``count`` completions at a time, each in a thread of its own; the others wait their turn."""

    def __init__(self, count: int) -> None:
        self._numbers = SlotNumbers(count)
        self._open = False
        self._streams: dict[EngineStream, int] = {}
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

    async def begin(self, complete: Complete, name: str | None = None) -> EngineStream:
        """Run ``complete`` as soon as a slot is free, and remember what is read there by ``name``.

        Raises BackendUnavailable ``engine_closed``. The slot is free again once ``complete`` has returned, so whoever
        reads the stream has to stop it.
        """
        self.check_open()
        return self._begun(await self._numbers.take(name), complete)

    async def begin_beside(self, complete: Complete) -> EngineStream:
        """As ``begin``, for what leaves in the slot what was read there."""
        self.check_open()
        return self._begun(await self._numbers.borrow(), complete)

    async def begin_where(self, name: str, complete: Complete) -> EngineStream | None:
        """As ``begin``, in the slot in which ``name`` was read, once nobody uses it. None: there is none."""
        self.check_open()
        number = await self._numbers.take_back(name)
        return None if number is None else self._begun(number, complete)

    def has_read(self, slot: int) -> None:
        """The engine has begun to read what it was given there; before, it holds what was read for somebody else."""
        self._numbers.has_read(slot)

    def _begun(self, number: int, complete: Complete) -> EngineStream:
        try:
            self.check_open()
            stream = EngineStream(partial(complete, number), self._ended)
            stream.start()
        except BaseException:
            self._numbers.give_back(number)
            raise
        self._streams[stream] = number
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
        self._numbers.give_back(self._streams.pop(stream))
        if not self._streams:
            self._idle.set()

    def _abandon(self) -> None:
        streams = list(self._streams)
        for stream in streams:
            stream.stop()
        deadline = time.monotonic() + _EXIT_WAIT_S
        for stream in streams:
            stream.join(max(0.0, deadline - time.monotonic()))
