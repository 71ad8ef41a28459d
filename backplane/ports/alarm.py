"""A deadline that is moved with every token, and seldom comes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class Alarm:
    """Bounds one wait after another, as ``asyncio.timeout_at`` bounds one, with a timer that is left as it is.

    ``asyncio`` starts and stops a timer for every wait. This one rings at the deadline of a wait that may be long over,
    and is then set again for the wait that is pending.
    """

    def __init__(self) -> None:
        """Within a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self._waiting: asyncio.Task[object] | None = None
        self._rang = False

    async def before(self, deadline: float | None, awaited: Awaitable[T]) -> T:
        """What ``awaited`` gives. Cancels it at ``deadline``, a time of the event loop, and raises TimeoutError."""
        if deadline is None:
            return await awaited
        self._deadline = deadline
        if self._timer is None or deadline < self._timer.when():
            self._set()
        self._waiting = task = asyncio.current_task(self._loop)
        assert task is not None
        cancelling = task.cancelling()
        try:
            return await awaited
        except asyncio.CancelledError:
            if self._rang and task.cancelling() <= cancelling + 1:
                raise TimeoutError from None
            raise
        finally:
            if self._rang:
                task.uncancel()
            self._waiting = None
            self._rang = False

    def stop(self) -> None:
        """No wait will follow."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self) -> None:
        self.stop()
        self._timer = self._loop.call_at(self._deadline, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._waiting is None:
            return
        if self._deadline > self._loop.time():
            self._set()
            return
        self._rang = True
        self._waiting.cancel()
