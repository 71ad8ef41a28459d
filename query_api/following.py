"""Following one generation from any cursor to its end, whatever becomes of Redis and Postgres meanwhile.

Subscribe first, then read the backlog, then tell only what follows what was told. A hole is filled from the backlog,
then from Postgres. Without Redis, Postgres is asked again and again; without Postgres, Redis goes on alone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from backplane.ports.database import DatabaseUnavailable
from backplane.ports.token_stream import Cursor, Frame, StreamReader, StreamUnavailable
from query_api.assembly import QUEUED, Assembly, Step


class Record(Protocol):
    """What Postgres knows of one generation."""

    async def since(self, cursor: Cursor) -> list[Frame]:
        """Oldest first: that it started, tokens of its newest attempt beyond ``cursor``, how it ended.

        Empty while it is queued. Raises DatabaseUnavailable.
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

    async def steps(self) -> AsyncGenerator[Step, None]:
        """What to tell, until the generation has ended. Never raises for an outage."""
        answered, steps = await self._ask()
        if answered and self._is_new and not steps:
            yield Step(QUEUED, Cursor(0, 0))
        for step in steps:
            yield step
        while not self._assembly.done:
            try:
                async with self._streams.follow(*self._ids) as live, aclosing(self._live(live)) as tail:
                    async for step in tail:
                        yield step
            except StreamUnavailable:
                await asyncio.sleep(self._pace.without_stream * random.uniform(0.8, 1.2))
                _, steps = await self._ask()
                for step in steps:
                    yield step

    async def _live(self, live: AsyncIterator[Frame | None]) -> AsyncGenerator[Step, None]:
        steps = await self._backlog()
        self._schedule(afresh=True)
        while True:
            for step in steps:
                yield step
            if self._assembly.done:
                return
            steps = await self._next(live)

    async def _next(self, live: AsyncIterator[Frame | None]) -> list[Step]:
        left = self._next_question - asyncio.get_running_loop().time()
        if left <= 0:
            return await self._question()
        try:
            async with asyncio.timeout(left):
                frame = await anext(live)
        except TimeoutError:
            return await self._question()
        except StopAsyncIteration:
            raise StreamUnavailable("the stream ended before its generation") from None
        if frame is None:
            return await self._backlog()
        had_hole = self._assembly.incomplete
        steps = self._assembly.take(frame)
        if not had_hole:
            if self._assembly.incomplete:
                steps += await self._backlog()
            if steps:
                self._schedule(afresh=True)
        return steps

    async def _question(self) -> list[Step]:
        """Ask Postgres because Redis is silent or has a hole; where Postgres is away too, ask Redis for all it has."""
        answered, steps = await self._ask()
        if not answered:
            steps += await self._backlog()
        self._schedule(afresh=bool(steps))
        if answered and steps:
            # What Postgres knew first shows that Redis is not being written to: do not wait for it.
            self._next_question = asyncio.get_running_loop().time() + self._pace.without_stream
        return steps

    def _schedule(self, *, afresh: bool) -> None:
        self._idle = self._pace.idle if afresh else min(self._idle * 2, self._pace.longest_idle)
        pause = self._pace.without_stream if self._assembly.incomplete else self._idle
        self._next_question = asyncio.get_running_loop().time() + pause

    async def _ask(self) -> tuple[bool, list[Step]]:
        """Whether Postgres answered, and what there is to tell now."""
        try:
            return True, self._take(await self._record.since(self._assembly.cursor))
        except DatabaseUnavailable:
            return False, []

    async def _backlog(self) -> list[Step]:
        """Raises StreamUnavailable."""
        steps = self._take(await self._streams.backlog(*self._ids))
        if self._assembly.incomplete:
            _, recorded = await self._ask()
            steps += recorded
        return steps

    def _take(self, frames: Iterable[Frame]) -> list[Step]:
        return [step for frame in frames for step in self._assembly.take(frame)]
