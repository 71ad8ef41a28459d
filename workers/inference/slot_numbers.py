"""The slots of an engine by number: who may use which, and what each was given to read last."""

from __future__ import annotations

import asyncio
from collections import deque


class SlotNumbers:
    """``count`` numbers from 0. Whoever took one gives it back once the engine has let go of it.

    The one that was used longest ago is given away first, so that what was read stays for as long as it can. What is
    read has a name or none; a name stands for the newest slot it was read in.
    """

    def __init__(self, count: int) -> None:
        self._free = list(range(count))
        """The one that was used longest ago comes first."""
        self._waiting: deque[tuple[int | None, asyncio.Future[int]]] = deque()
        self._names: dict[int, str] = {}
        self._read: set[int] = set()

    async def take(self, name: str | None = None) -> int:
        """A number, to read in what is known by ``name``. What was read there before is nobody's any more."""
        number = self._free.pop(0) if self._free else await self._wait(None)
        for held in (number, self._holding(name)):
            if held is not None:
                self._names.pop(held, None)
                self._read.discard(held)
        if name is not None:
            self._names[number] = name
        return number

    async def borrow(self) -> int:
        """A number, the one that was used last, for what reads nothing: it holds what it held."""
        return self._free.pop() if self._free else await self._wait(None)

    async def take_back(self, name: str) -> int | None:
        """The number that ``name`` was read in, once nobody uses it, which then holds nothing. None: there is none."""
        number = self._holding(name)
        if number is None:
            return None
        if number in self._free:
            self._free.remove(number)
        else:
            await self._wait(number)
            if self._names.get(number) != name:
                self.give_back(number)
                return None
        del self._names[number]
        self._read.discard(number)
        return number

    def has_read(self, number: int) -> None:
        """The engine has begun to read there; before that it still holds what somebody else gave it."""
        self._read.add(number)

    def give_back(self, number: int) -> None:
        """It is free, or whoever waits for it has it."""
        if number not in self._read:
            self._names.pop(number, None)
        for wanted in (number, None):
            for waiting in [one for one in self._waiting if one[0] == wanted]:
                self._waiting.remove(waiting)
                if not waiting[1].done():
                    waiting[1].set_result(number)
                    return
        self._free.append(number)

    def _holding(self, name: str | None) -> int | None:
        return next((number for number, held in self._names.items() if held == name), None)

    async def _wait(self, wanted: int | None) -> int:
        waiting: tuple[int | None, asyncio.Future[int]] = (wanted, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        try:
            return await waiting[1]
        except asyncio.CancelledError:
            if waiting[1].cancelled():
                if waiting in self._waiting:
                    self._waiting.remove(waiting)
            else:
                self.give_back(waiting[1].result())
            raise
