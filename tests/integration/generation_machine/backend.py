"""The scripted backend, let on token by token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from enum import Enum
from uuid import UUID

from workers.inference.port import (
    BackendUnavailable,
    Delta,
    InferenceRequest,
    Item,
    NotServed,
    Progress,
    RequestRefused,
)
from workers.inference.scripted import ScriptedBackend

Run = tuple[UUID, int]
"""A generation and its attempt."""


class Outcome(Enum):
    FINISHED = "finished"
    REFUSED = "refused"
    BROKEN = "broken"
    AWAY = "away"
    """It never began, so that another pool may serve it."""


class Gate:
    """What holds one attempt up."""

    def __init__(self, permits: float) -> None:
        self._permits = permits
        self._outcome: Outcome | None = None
        self._changed = asyncio.Event()

    def let(self, permits: float, outcome: Outcome | None = None) -> None:
        """Let so many more tokens through, then, or at once where it is a fault, end as ``outcome``."""
        self._permits += permits
        self._outcome = self._outcome or outcome
        self._changed.set()

    async def token(self) -> None:
        while True:
            self._break_off()
            if self._permits >= 1:
                self._permits -= 1
                return
            await self._change()

    async def end(self) -> None:
        while self._outcome is not Outcome.FINISHED:
            self._break_off()
            await self._change()

    def _break_off(self) -> None:
        if self._outcome is Outcome.REFUSED:
            raise RequestRefused("refused", "the rule says so")
        if self._outcome is Outcome.BROKEN:
            raise BackendUnavailable("broken", "the rule says so")
        if self._outcome is Outcome.AWAY:
            raise NotServed("away", "the rule says so")

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


class SteppedBackend:
    """The ``Backend`` port. ``produced`` is the truth of what each attempt said, ``outcomes`` of how it came out."""

    def __init__(self) -> None:
        self._scripted = ScriptedBackend(slots=100)
        self.gates: dict[Run, Gate] = {}
        self.produced: dict[Run, list[str]] = {}
        self.outcomes: dict[Run, Outcome] = {}
        self.run_twice: list[Run] = []
        self.unhindered = False

    async def start(self, progress: Progress) -> None:
        await self._scripted.start(progress)

    async def generate(self, request: InferenceRequest) -> AsyncGenerator[Item, None]:
        run = request.generation_id, request.attempt
        if run in self.produced:
            self.run_twice.append(run)
        self.produced[run] = []
        gate = self.gates[run] = Gate(float("inf") if self.unhindered else 0)
        if self.unhindered:
            gate.let(0, Outcome.FINISHED)
        try:
            async with aclosing(self._scripted.generate(request)) as items:
                async for item in items:
                    if isinstance(item, Delta):
                        await gate.token()
                        self.produced[run].append(item.text)
                    else:
                        await gate.end()
                        self.outcomes[run] = Outcome.FINISHED
                    yield item
        except RequestRefused:
            self.outcomes[run] = Outcome.REFUSED
            raise
        except NotServed:
            self.outcomes[run] = Outcome.AWAY
            raise
        except BackendUnavailable:
            self.outcomes[run] = Outcome.BROKEN
            raise
        finally:
            del self.gates[run]

    async def count(self, request: InferenceRequest) -> None:
        """No window here is ever full."""

    def let_all(self) -> None:
        """From now on nothing is held up."""
        self.unhindered = True
        for gate in self.gates.values():
            gate.let(float("inf"), Outcome.FINISHED)

    async def close(self) -> None:
        await self._scripted.close()
