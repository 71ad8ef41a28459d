"""Deliveries that wait until something in their conversation ends. They take no slot."""

from __future__ import annotations

import asyncio
from uuid import UUID


class Held:
    """``len`` is how many wait."""

    def __init__(self) -> None:
        self._waiting: dict[UUID, list[asyncio.Event]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    async def wait(self, conversation_id: UUID, longest_s: float) -> None:
        """Return when the conversation is woken, after ``longest_s`` seconds at the latest."""
        woken = asyncio.Event()
        self._waiting.setdefault(conversation_id, []).append(woken)
        try:
            async with asyncio.timeout(longest_s):
                await woken.wait()
        except TimeoutError:
            pass
        finally:
            self._waiting[conversation_id].remove(woken)
            if not self._waiting[conversation_id]:
                del self._waiting[conversation_id]

    def wake(self, conversation_id: UUID) -> None:
        """Something in this conversation ended."""
        for woken in self._waiting.get(conversation_id, ()):
            woken.set()

    def wake_all(self) -> None:
        for conversation_id in self._waiting:
            self.wake(conversation_id)
