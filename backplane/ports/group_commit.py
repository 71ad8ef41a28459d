"""Many small writes in one: what comes in one tick of the event loop, or during a write, goes together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class GroupCommit(Generic[Item, Result]):
    """Hands items to ``write`` in groups, one group at a time, in the order in which they came.

    ``write`` returns one result for each item; an exception among them is raised to that item's caller only, an
    exception that it raises is raised to all of the group.
    """

    def __init__(
        self,
        write: Callable[[list[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        most_items: int = 1000,
        most_bytes: int = 8 * 1024 * 1024,
        size: Callable[[Item], int] = lambda _: 0,
    ) -> None:
        self._write = write
        self._most_items = most_items
        self._most_bytes = most_bytes
        self._size = size
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._running: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Result:
        """Return once the group with ``item`` is written. A caller that is cancelled does not take its item back."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run(), context=Context())
        return await future

    async def drain(self) -> None:
        """Return once nothing is waiting."""
        while self._running is not None:
            await asyncio.wait([self._running])

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._write_group(self._next_group())
        finally:
            self._running = None

    def _next_group(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        group = [self._waiting.popleft()]
        size = self._size(group[0][0])
        while self._waiting and len(group) < self._most_items:
            size += self._size(self._waiting[0][0])
            if size > self._most_bytes:
                break
            group.append(self._waiting.popleft())
        return group

    async def _write_group(self, group: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        results: Sequence[Result | Exception]
        try:
            results = await self._write([item for item, _ in group])
        except Exception as error:
            results = [error] * len(group)
        except BaseException:
            for _, future in group:
                future.cancel()
            raise
        for (_, future), result in zip(group, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
