"""One who follows a generation, reads as much as a rule lets it, and may be cut off at any frame."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from uuid import UUID

from backplane.ports.token_stream import Cursor
from backplane.security.principal import Principal
from event_schemas.chat import text_of
from query_api import readers
from query_api.assembly import QUEUED, RESTARTED, STARTED, TOKEN, Step
from query_api.freshness import ProjectionsLag
from query_api.service import QueryPorts
from tests.integration.generation_machine.model import Model

_ENDINGS = {"completed", "failed", "cancelled"}


class Client:
    """``cursor`` is the id of the last event that it was told; ``text`` what it makes of all of them."""

    def __init__(self, model: Model, generation_id: UUID, cursor: Cursor | None) -> None:
        self._model = model
        self._generation = model.generations[generation_id]
        self.cursor = cursor
        self.text = "" if cursor is None else model.text_to(generation_id, cursor)
        self.ending: str | None = None
        self._permits = asyncio.Semaphore(0)
        self._task: asyncio.Task[bool] | None = None

    @property
    def generation_id(self) -> UUID:
        return self._generation.id

    def connect(self, ports: QueryPorts, principal: Principal) -> None:
        """Begin to follow after ``cursor``."""
        self._permits = asyncio.Semaphore(0)
        self._task = asyncio.create_task(self._read(ports, principal))

    def read(self, steps: int) -> None:
        """Take so many more steps, as they come."""
        for _ in range(steps):
            self._permits.release()

    async def cut(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    @property
    def connected(self) -> bool:
        return self._task is not None and not self._task.done()

    def check(self) -> None:
        """What can only be said once the model knows as much as the client."""
        one, ended = self._generation, self._generation.terminal
        if self._task is not None and self._task.done():
            refused = self._task.result()
            self._expect(refused or self.ending is not None, "its stream ended before it")
        if self.cursor is not None:
            self._expect(self.cursor.attempt <= (one.attempt or 0), "it was told of an attempt that never was")
        if self.ending is not None:
            self._expect(ended is not None, "it was told of an end that never was")
            assert ended is not None
            self._expect(ended.wire_name.split(".")[1] == self.ending, "it was told of another end")
            self._expect(
                self.text == self._model.sealed.answer(ended).text, "what it was told is not the stored answer"
            )

    async def _read(self, ports: QueryPorts, principal: Principal) -> bool:
        """True: it is to come again later."""
        try:
            steps = await readers.follow(ports, principal, self._generation.id, self.cursor)
        except ProjectionsLag:
            return True
        async with aclosing(steps):
            while True:
                await self._permits.acquire()
                try:
                    step = await anext(steps)
                except StopAsyncIteration:
                    return False
                self._told(step)

    def _told(self, step: Step) -> None:
        before, self.cursor = self.cursor, step.cursor
        attempt, seq = before or Cursor(0, 0)
        self._expect(self.ending is None, "it was told more after the end")
        if step.event == QUEUED:
            self._expect(before is None and step.cursor == (0, 0), "queued is not the first it was told")
        elif step.event in (STARTED, RESTARTED):
            self._expect((step.event == STARTED) == (attempt == 0), f"{step.event} after attempt {attempt}")
            self._expect(step.cursor.attempt > attempt and step.cursor.seq == 0, f"{before}, then {step.cursor}")
            self.text = ""
        elif step.event == TOKEN:
            self._expect(
                step.cursor == (attempt, seq + len(step.deltas)) and bool(step.deltas), f"{before}, then {step.cursor}"
            )
            self.text += text_of(step.deltas)
        else:
            self._expect(step.event in _ENDINGS and step.cursor == (attempt, seq), f"{before}, then {step.cursor}")
            self.ending = step.event
        self._expect(
            self.text == self._model.text_to(self._generation.id, step.cursor), "it holds what its attempt never said"
        )

    def _expect(self, holds: bool, what: str) -> None:
        self._model.check(holds, f"a follower at {self.cursor}: {what}", self._generation)
