"""One worker process as rules see it: at each of its calls it may die, stall, or get an error instead of an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum


class Place(Enum):
    DATABASE = "a transaction"
    PUBLISH = "a publish"
    ACK = "an ack"


class Moment(Enum):
    BEFORE = "before it is done"
    AFTER = "after it is done, and before that is known"


class Mishap(Enum):
    CRASH = "the process dies"
    ERROR = "an error comes instead of the answer"
    STALL = "the answer is long in coming"


@dataclass(slots=True)
class Trap:
    """What happens at the call after ``skip`` others."""

    place: Place
    skip: int
    moment: Moment
    mishap: Mishap


class Process:
    """``name`` is unique among all that ever ran."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self._trap: Trap | None = None
        self._stalls: list[asyncio.Event] = []

    @property
    def stalls(self) -> bool:
        return bool(self._stalls)

    def set_trap(self, trap: Trap | None) -> None:
        """It goes off once, and takes the place of the one before."""
        self._trap = trap

    def resume(self) -> None:
        """What stalled goes on."""
        for stall in self._stalls:
            stall.set()
        self._stalls.clear()

    def crash(self) -> None:
        """From now on nothing that it does has any effect."""
        self.dead = True

    def check(self) -> None:
        """Raises CancelledError where the process is dead: its code gets no further."""
        if self.dead:
            raise asyncio.CancelledError

    @asynccontextmanager
    async def call(self, place: Place, error: type[Exception]) -> AsyncIterator[None]:
        """The block is what the call does; around it, the trap may go off. Raises ``error``."""
        self.check()
        trap = self._sprung(place)
        if trap is not None and trap.moment is Moment.BEFORE:
            await self._suffer(trap.mishap, error)
        yield
        if trap is not None and trap.moment is Moment.AFTER:
            await self._suffer(trap.mishap, error)
        self.check()

    def _sprung(self, place: Place) -> Trap | None:
        trap = self._trap
        if trap is None or trap.place is not place:
            return None
        if trap.skip:
            trap.skip -= 1
            return None
        self._trap = None
        return trap

    async def _suffer(self, mishap: Mishap, error: type[Exception]) -> None:
        match mishap:
            case Mishap.CRASH:
                self.crash()
            case Mishap.ERROR:
                raise error("by the rule")
            case Mishap.STALL:
                stall = asyncio.Event()
                self._stalls.append(stall)
                await stall.wait()
        self.check()
