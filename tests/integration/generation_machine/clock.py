"""An event loop whose time passes only when it is told to, so that timers fire by rule and never by chance."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

_IMMINENT_S = 0.009
"""Timers this near fire as soon as somebody waits: so the token stream gathers frames, which is nothing for a rule."""
_PATIENCE_S = 0.03
"""Real seconds to wait for something that may just as well need time to pass first."""
_DEADLINE_S = 30.0
"""Real seconds within which a server answers."""
_MOST_JUMPS = 5_000


class _Stillness(selectors.DefaultSelector):
    """Where an event loop waits. Here it is known that nothing is left to do but wait."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.answering = 0
        self.waiting = 0
        self.jumps = 0
        self.quiet: asyncio.Future[None] | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        if self.answering:
            events = super().select(_DEADLINE_S)
            assert events, f"no server answered within {_DEADLINE_S} s"
            return events
        if not self.waiting:
            if self.quiet is not None and not self.quiet.done():
                self.quiet.set_result(None)
                return []
        elif (timeout is None or timeout > _IMMINENT_S) and (events := super().select(_PATIENCE_S)):
            return events
        self._jump(timeout)
        return []

    def _jump(self, timeout: float | None) -> None:
        self.jumps += 1
        assert self.jumps < _MOST_JUMPS, "what is waited for does not come, however much time passes"
        assert timeout is not None or self.waiting, "nothing can happen any more"
        self.now += timeout or 0.0


class StillLoop(asyncio.SelectorEventLoop):
    """Code on it says what it waits for: for a server's answer, or for something that may need time to pass."""

    def __init__(self) -> None:
        self._stillness = _Stillness()
        self.calls = 0
        """How often a server was asked."""
        self._turn = asyncio.Lock()
        super().__init__(self._stillness)

    def time(self) -> float:
        return self._stillness.now

    @contextmanager
    def answering(self) -> Iterator[None]:
        """A server will answer; no time passes meanwhile."""
        self.calls += 1
        self._stillness.answering += 1
        try:
            yield
        finally:
            self._stillness.answering -= 1

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """As ``answering``, one after the other, so that the order of answers is always the same."""
        async with self._turn:
            with self.answering():
                yield

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Something will come; where it does not by itself, time passes."""
        self._stillness.waiting += 1
        try:
            yield
        finally:
            self._stillness.waiting -= 1

    async def quiet(self) -> None:
        """Return once nothing goes on any more that does not need time to pass, or a rule."""
        self._stillness.quiet = self.create_future()
        await self._stillness.quiet

    def pass_time(self, seconds: float) -> None:
        self._stillness.jumps = 0
        self._stillness.now += seconds
