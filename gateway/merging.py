"""Several streams of steps as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from query_api.assembly import Step


async def merged(streams: Sequence[AsyncGenerator[Step, None]]) -> AsyncGenerator[tuple[int, Step], None]:
    """Each step as it comes, with the number of its stream. Raises what the first of them raises."""
    if len(streams) == 1:
        async with aclosing(streams[0]) as steps:
            async for step in steps:
                yield 0, step
        return
    waiting: asyncio.Queue[tuple[int, Step] | None] = asyncio.Queue()

    async def read(number: int, stream: AsyncGenerator[Step, None]) -> None:
        try:
            async with aclosing(stream) as steps:
                async for step in steps:
                    waiting.put_nowait((number, step))
        finally:
            waiting.put_nowait(None)

    readers = [asyncio.create_task(read(*one)) for one in enumerate(streams)]
    try:
        running = len(readers)
        while running:
            found = await waiting.get()
            if found is None:
                running -= 1
                for one in readers:
                    if one.done():
                        one.result()
            else:
                yield found
    finally:
        for one in readers:
            one.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
