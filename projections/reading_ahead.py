"""Reading the next page of the record while the one before is still being used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar


class Page(Protocol):
    """Some lines of one tenant's record, in order."""

    @property
    def last(self) -> int:
        """Sequence up to which they go."""


P = TypeVar("P", bound=Page)

Read = Callable[[int], Coroutine[Any, Any, P]]
"""Reads the page after a sequence."""


@asynccontextmanager
async def pages(read: Read[P], after: int, to: int) -> AsyncGenerator[AsyncGenerator[P]]:
    """Pages from ``after``, exclusive, until one goes up to ``to``. Whatever ``read`` raises is raised."""
    reading: asyncio.Task[P] | None = None

    async def each() -> AsyncGenerator[P]:
        nonlocal reading
        reached = after
        while reached < to:
            page = await (reading or asyncio.create_task(read(reached)))
            reached = page.last
            reading = asyncio.create_task(read(reached)) if reached < to else None
            yield page

    made = each()
    try:
        yield made
    finally:
        await made.aclose()
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
