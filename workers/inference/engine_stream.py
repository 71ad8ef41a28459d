"""One completion in a thread of its own, and the way of its chunks to the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable

Receive = Callable[[str], bool]
"""Takes a chunk; returns True to stop the engine. An empty chunk only asks."""


class EngineStream:
    """Runs ``complete`` in a daemon thread and hands its chunks on, in order, to one reader on the running loop.

    ``complete`` blocks and calls what it is given once a chunk. ``on_end`` is called on the loop once the thread has
    let go of the engine, whoever ended it.
    """

    def __init__(self, complete: Callable[[Receive], None], on_end: Callable[[EngineStream], None]) -> None:
        self._complete = complete
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._chunks: deque[str] = deque()
        self._news = asyncio.Event()
        self._wake_is_scheduled = False
        self._stopped = False
        self._ended = False
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="engine-stream", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop the engine at its next chunk. From any thread; does not wait."""
        self._stopped = True

    def join(self, timeout_s: float) -> None:
        """Wait until the thread has ended. Blocks."""
        self._thread.join(timeout_s)

    async def next_chunk(self) -> str | None:
        """The next chunk, or None once all have been read and the thread has let go of the engine."""
        while not self._chunks:
            if self._ended:
                return None
            self._news.clear()
            await self._news.wait()
        return self._chunks.popleft()

    def _run(self) -> None:
        try:
            self._complete(self._receive)
        except Exception as error:
            self.failure = error
        finally:
            self._call_on_loop(self._end)

    def _receive(self, chunk: str) -> bool:
        if chunk and not self._stopped:
            self._chunks.append(chunk)
            # One wake-up serves all chunks that come before the loop gets to it.
            if not self._wake_is_scheduled:
                self._wake_is_scheduled = True
                self._call_on_loop(self._wake)
        return self._stopped

    def _call_on_loop(self, callback: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:  # the loop was closed: nobody reads any more
            self._stopped = True

    def _wake(self) -> None:
        self._wake_is_scheduled = False
        self._news.set()

    def _end(self) -> None:
        self._ended = True
        self._news.set()
        self._on_end(self)
