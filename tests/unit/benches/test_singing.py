from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from benches.singing import sing


async def test_only_what_comes_within_the_window_counts() -> None:
    asked = 0

    async def answer() -> AsyncIterator[int]:
        nonlocal asked
        asked += 1
        for _ in range(3):
            await asyncio.sleep(0.01)
            yield 2

    sung = await sing(4, 0.05, 0.2, answer)
    assert asked >= 8
    assert 0 < sung.deltas < asked * 6
    assert sung.a_second == sung.deltas / 0.2


async def test_nothing_counts_before_the_window() -> None:
    async def answer() -> AsyncIterator[int]:
        yield 5
        await asyncio.sleep(0.3)

    assert (await sing(1, 0.05, 0.1, answer)).deltas == 0
