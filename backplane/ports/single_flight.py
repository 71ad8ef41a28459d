"""One call for all who want the same thing at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class SingleFlight(Generic[Key, Value]):
    """Shares what ``call`` returns or raises, for as long as it is under way, with all who ask for the same key.

    They go on in the order in which they asked, and one who is cancelled takes no other with it.
    """

    def __init__(self, call: Callable[[Key], Awaitable[Value]]) -> None:
        self._call = call
        self._under_way: dict[Key, asyncio.Task[Value]] = {}

    async def get(self, key: Key) -> Value:
        """Raises what the call raises."""
        return await asyncio.shield(self.begin(key))

    def begin(self, key: Key) -> asyncio.Task[Value]:
        """The call that is under way, or a new one; it need not be awaited."""
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(self._run(key), context=Context())
            task.add_done_callback(lambda ended: self._ended(key, ended))
        return task

    async def settled(self) -> None:
        """Return once no call is under way, not even one that nobody waits for any more."""
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    async def _run(self, key: Key) -> Value:
        return await self._call(key)

    def _ended(self, key: Key, task: asyncio.Task[Value]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # all who wanted to know may be gone, and then it is nobody's fault
