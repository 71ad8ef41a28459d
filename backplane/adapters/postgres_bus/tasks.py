"""Ending background tasks."""

from __future__ import annotations

import asyncio


async def stop(task: asyncio.Task[None]) -> None:
    """Cancel ``task`` and return once it has ended, however it ended.

    Asks again until it has: a cancellation that arrives just when a connection fails can be lost in the driver.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.1)
