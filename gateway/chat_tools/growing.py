"""An answer as it grows, as it is shown where people chat."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from uuid import UUID

from backplane.security.content import CannotRead
from backplane.security.principal import Principal
from event_schemas.chat import AnswerContent
from gateway.asking import Whole
from query_api import readers
from query_api.assembly import Step
from query_api.freshness import NoSuch
from query_api.service import QueryPorts

THINKING = "…"
_GONE = "The answer is not there any more."


class Growing:
    """What was said so far. ``has_ended`` tells whether that is all."""

    def __init__(
        self, steps: Callable[[], Awaitable[AsyncGenerator[Step, None]]] | None = None, text: str = ""
    ) -> None:
        """By ``steps``, or ``text`` from the beginning."""
        self._steps = steps
        self._whole = Whole()
        self._ending = text
        self._changed = asyncio.Event()

    @classmethod
    def of(cls, queries: QueryPorts, asker: Principal, generation_id: UUID) -> Growing:
        """That of a generation, as ``asker`` sees it."""
        return cls(lambda: readers.follow(queries, asker, generation_id, None))

    @property
    def has_ended(self) -> bool:
        return bool(self._ending)

    @property
    def has_begun(self) -> bool:
        """There is something to say."""
        return bool(self._ending or self._said)

    @property
    def text(self) -> str:
        """What is shown now: while it grows, with a mark that there is more to come."""
        if self._ending:
            return self._ending
        said = self._said
        return f"{said} {THINKING}" if said else THINKING

    async def follow(self) -> None:
        """Let it grow until it has ended. Raises ProjectionsLag, BusError, DatabaseUnavailable, WrappingUnavailable."""
        try:
            if self._steps is not None:
                async with aclosing(await self._steps()) as steps:
                    async for step in steps:
                        self._take(step)
                self._ending = self._ending or _GONE
        except NoSuch:
            self._ending = _GONE
        except CannotRead:
            self._ending = "What was answered cannot be read; it was logged for the operator."
        finally:
            self._changed.set()

    async def changed(self, within_s: float) -> None:
        """Once there is something new since this was last asked, or time is over."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), within_s)
        self._changed.clear()

    def _take(self, step: Step) -> None:
        match step.event:
            case "started" | "restarted":
                self._whole = Whole()  # what was said before is void
            case "token":
                self._whole.pieces += step.deltas
            case "completed":
                self._ending = self._said or "The answer has no words."
            case "failed":
                self._ending = f"{self._said}\n\nThere is no whole answer: {step.detail['detail']}".strip()
            case "cancelled":
                self._ending = f"{self._said}\n\nIt was cancelled.".strip()
        self._changed.set()

    @property
    def _said(self) -> str:
        return AnswerContent.of(self._whole.pieces).text.strip()
