"""Waiting longer and longer between tries, and not at all once asked to stop."""

from __future__ import annotations

import asyncio
import random

FIRST_S = 0.1
LONGEST_S = 5.0


class Backoff:
    """One row of tries."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop
        self._next_s = FIRST_S

    async def pause(self) -> bool:
        """Wait before the next try; False, at once, when asked to stop."""
        # Jitter, so that processes that lost the same server don't come back in step.
        wait_s = self._next_s * random.uniform(0.5, 1.0)
        self._next_s = min(self._next_s * 2, LONGEST_S)
        try:
            await asyncio.wait_for(self._stop.wait(), wait_s)
        except TimeoutError:
            return True
        return False
