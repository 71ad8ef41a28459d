"""Waiting for one of two."""

from __future__ import annotations

import asyncio
from typing import Any


async def either(stopping: asyncio.Task[bool], other: asyncio.Task[Any]) -> bool:
    """Wait for either; True if ``other`` is done. Else it is cancelled, also when the waiting itself is."""
    try:
        await asyncio.wait({stopping, other}, return_when=asyncio.FIRST_COMPLETED)
        return other.done()
    finally:
        if not other.done():
            other.cancel()
            await asyncio.gather(other, return_exceptions=True)
