"""Following one generation from any cursor to its end, whatever becomes of Redis and Postgres meanwhile.

Subscribe first, then read the backlog, then tell only what follows what was told. A hole is filled from the backlog,
then from Postgres. Without Redis, Postgres is asked again and again; without Postgres, Redis goes on alone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Protocol
from uuid import UUID

from backplane.ports.alarm import Alarm
from backplane.ports.database import DatabaseUnavailable
from backplane.ports.key_wrapping import WrappingUnavailable
from backplane.ports.token_stream import Cursor, Frame, StreamReader, StreamUnavailable
from query_api.assembly import QUEUED, RESTARTED, TOKEN, Assembly, Step
from query_api.place import Place


class Record(Protocol):
    """What Postgres knows of one generation."""

    async def since(self, cursor: Cursor) -> list[Frame]:
        """Oldest first: that it started, tokens of its newest attempt beyond ``cursor``, how it ended.

        Empty while it is queued. It ends without its tokens where they are not stored any more.

        Raises DatabaseUnavailable, WrappingUnavailable.
        """


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between questions to Postgres."""

    without_stream: float = 0.25
    """While Redis is away, or holes are to be filled."""
    idle: float = 1.0
    """While Redis is silent; doubles up to ``longest_idle`` as long as Postgres knows nothing new either."""
    longest_idle: float = 5.0


class Follower:
    """One follower of one generation."""

    def __init__(
        self,
        record: Record,
        streams: StreamReader,
        tenant_id: UUID,
        generation_id: UUID,
        cursor: Cursor | None,
        pace: Pace,
    ) -> None:
        """``cursor`` is the last one that the follower was told; None if it was told nothing."""
        self._record = record
        self._streams = streams
        self._ids = tenant_id, generation_id
        self._is_new = cursor is None
        self._assembly = Assembly(cursor or Cursor(0, 0))
        self._pace = pace
        self._idle = pace.idle
        self._next_question = 0.0
        self._untold: list[Step] = []
        self._loop = asyncio.get_running_loop()  # kept: Python asks the system for its process each time
        self._alarm = Alarm()

    @property
    def cursor(self) -> Cursor:
        """What was told, or is about to be."""
        return self._assembly.cursor

    async def steps(
        self,
        known: Sequence[Frame] | None = None,
        live: AsyncIterator[Frame | None] | None = None,
        place: Place | None = None,
    ) -> AsyncGenerator[Step, None]:
        """What to tell, until the generation has ended. Never raises for an outage.

        ``known`` is what the record said a moment ago; without it, the record is asked first. ``live`` is the stream
        where it is listened to already; ``known`` is then its backlog. ``place`` is told with ``queued``.
        """
        answered = True
        if known is None:
            answered = await self._ask()
        else:
            self._take(*known)
        if answered and self._is_new and not self._untold:
            yield Step(QUEUED, Cursor(0, 0), detail={} if place is None else asdict(place))
        for step in self._tell():
            yield step
        try:
            while not self._assembly.done:
                try:
                    listening = self._listening() if live is None else nullcontext(live)
                    live = None
                    async with listening as frames:
                        self._schedule(afresh=True)
                        for step in self._tell():
                            yield step
                        while not self._assembly.done:
                            await self._next(frames)
                            for step in self._tell():
                                yield step
                except StreamUnavailable:
                    # What was taken in before it broke is told first: the cursor has moved past it.
                    for step in self._tell():
                        yield step
                    if not self._assembly.done:
                        await asyncio.sleep(self._pace.without_stream * random.uniform(0.8, 1.2))
                        await self._ask(last=True)
                        for step in self._tell():
                            yield step
        finally:
            self._alarm.stop()

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[AsyncIterator[Frame | None]]:
        """The stream from now on, its backlog taken in."""
        async with self._streams.follow(*self._ids) as live:
            await self._backlog()
            yield live

    async def _next(self, live: AsyncIterator[Frame | None]) -> None:
        if self._next_question <= self._loop.time():
            return await self._question()
        try:
            frame = await self._alarm.before(self._next_question, anext(live))
        except TimeoutError:
            return await self._question()
        except StopAsyncIteration:
            raise StreamUnavailable("the stream ended before its generation") from None
        if frame is None:
            return await self._backlog()
        had_hole = self._assembly.incomplete
        self._take(frame)
        if not had_hole:
            if self._assembly.incomplete:
                await self._backlog()
            if self._untold:
                self._schedule(afresh=True)
        return None

    async def _question(self) -> None:
        """Ask Postgres because Redis is silent or has a hole; where Postgres is away too, ask Redis for all it has."""
        answered = await self._ask()
        if not answered:
            await self._backlog()
        self._schedule(afresh=bool(self._untold))
        if answered and self._untold:
            # What Postgres knew first shows that Redis is not being written to: do not wait for it.
            self._next_question = self._loop.time() + self._pace.without_stream

    def _schedule(self, *, afresh: bool) -> None:
        self._idle = self._pace.idle if afresh else min(self._idle * 2, self._pace.longest_idle)
        pause = self._pace.without_stream if self._assembly.incomplete else self._idle
        self._next_question = self._loop.time() + pause

    async def _ask(self, *, last: bool = False) -> bool:
        """Take in what Postgres knows. Returns whether it answered.

        It is asked ``last`` where Redis is away, or said all that it has: what both don't have is nowhere.
        """
        try:
            frames = await self._record.since(self._assembly.cursor)
        except (DatabaseUnavailable, WrappingUnavailable):
            return False
        self._take(*frames)
        if last and any(frame.kind.terminal for frame in frames):
            self._untold += self._assembly.give_up()
        return True

    async def _backlog(self) -> None:
        """Take in what Redis has, and what Postgres knows where that leaves a hole. Raises StreamUnavailable."""
        self._take(*await self._streams.backlog(*self._ids))
        if self._assembly.incomplete:
            await self._ask(last=True)

    def _take(self, *frames: Frame) -> None:
        for frame in frames:
            self._untold += self._assembly.take(frame)

    def _tell(self) -> list[Step]:
        """What is known and was not told; not what is void already."""
        told, self._untold = self._untold, []
        begun = max((place for place, step in enumerate(told) if step.event == RESTARTED), default=0)
        return [step for step in told[:begun] if step.event != TOKEN] + told[begun:]
