"""Asking through a door: one prompt and its answer, told as doors need it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import anyio
from starlette.requests import HTTPConnection

import command_api.ports
import query_api.service
from backplane.ports.budget import Standing
from backplane.ports.bus import BusError
from backplane.ports.database import DatabaseUnavailable
from backplane.security.principal import Principal
from backplane.web.event_stream import is_closing
from command_api import limit_answers
from command_api.conversations import NoSuch
from command_api.prompt import PromptBody
from command_api.submission import ProjectionsLag
from command_api.submitting import submitted
from event_schemas.chat import AnswerContent, Piece
from gateway.ports import ports_of
from gateway.presence import Gone
from query_api import readers
from query_api.answers import answers
from query_api.assembly import QUEUED, RESTARTED, STARTED, TOKEN, Step

logger = logging.getLogger(__name__)

CONVERSATION_HEADER, GENERATION_HEADER = "Parley-Conversation-Id", "Parley-Generation-Id"


class BegunAgain(Exception):
    """The answer begins anew after some of it was told, which cannot be taken back."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt that was accepted: it ends in exactly one of completed, failed, cancelled."""

    generation_id: UUID
    conversation_id: UUID
    model: str
    standings: tuple[Standing, ...]
    is_new: bool
    """Not asked for before, with the same idempotency key."""

    @property
    def headers(self) -> dict[str, str]:
        """How its limits stand, and its names at Parley."""
        return limit_answers.headers(self.standings) | {
            GENERATION_HEADER: str(self.generation_id),
            CONVERSATION_HEADER: str(self.conversation_id),
        }


async def ask(
    request: HTTPConnection, principal: Principal, body: PromptBody, idempotency_key: str | None = None
) -> Asked:
    """Submit ``body``. Raises Problem, and what the bus, the database and the data keys raise."""
    accepted, standings = await submitted(request, principal, body, idempotency_key, request.headers.get("traceparent"))
    is_new = idempotency_key is None
    return Asked(accepted.generation_id, accepted.conversation_id, accepted.model, standings, is_new)


async def cancel(request: HTTPConnection, principal: Principal, generation_id: UUID) -> None:
    """Stop it, where it has not ended. Raises as `Submission.cancel`."""
    ports: command_api.ports.CommandPorts = request.app.state.command
    await ports.submission.cancel(principal, generation_id)


async def follow(request: HTTPConnection, principal: Principal, generation_id: UUID) -> AsyncGenerator[Step, None]:
    """Its steps from the beginning. Raises Problem at once, and as `readers.follow`."""
    ports: query_api.service.QueryPorts = request.app.state.query
    with answers():
        return await readers.follow(ports, principal, generation_id, None)


async def follow_asked(request: HTTPConnection, principal: Principal, asked: Asked) -> AsyncGenerator[Step, None]:
    """The same, of a prompt of this very request, about which Postgres has nothing to say yet. Raises as ``follow``."""
    if not asked.is_new:
        return await follow(request, principal, asked.generation_id)
    ports: query_api.service.QueryPorts = request.app.state.query
    return readers.follow_submitted(ports, principal.tenant_id, asked.generation_id)


async def told(steps: AsyncGenerator[Step, None]) -> AsyncGenerator[Step, None]:
    """``steps`` for who cannot take words back: a beginning, tokens, an end. A restart before the first token is one
    more beginning.

    Raises BegunAgain where it restarts later.
    """
    has_spoken = False
    async with aclosing(steps):
        async for step in steps:
            if step.event == QUEUED:
                continue
            if step.event == RESTARTED:
                if has_spoken:
                    raise BegunAgain
                step = step._replace(event=STARTED)
            has_spoken = has_spoken or step.event == TOKEN
            yield step


@asynccontextmanager
async def stopped_without_reader(
    request: HTTPConnection, principal: Principal, asked: Sequence[Asked]
) -> AsyncIterator[None]:
    """While somebody reads the answers. Where the reader goes away, what runs for it is stopped, if the settings say
    so; not where it is this process that goes."""
    try:
        yield
    except (Gone, GeneratorExit, asyncio.CancelledError):
        if ports_of(request).doors.cancel_on_disconnect and not is_closing():
            with anyio.CancelScope(shield=True):
                for one in asked:
                    await _give_up(request, principal, one.generation_id)
        raise


async def _give_up(request: HTTPConnection, principal: Principal, generation_id: UUID) -> None:
    try:
        await cancel(request, principal, generation_id)
    except (NoSuch, ProjectionsLag, BusError, DatabaseUnavailable) as error:
        # Nobody is there to be told. It goes on to its end, and is paid for.
        about = {"generation_id": str(generation_id), "cause": str(error)}
        logger.warning("not cancelled", extra={"action": "cancel_failed"} | about)


@dataclass(slots=True)
class Whole:
    """An answer as a whole."""

    pieces: list[Piece] = field(default_factory=list)
    ending: Step | None = None
    model: str | None = None

    @property
    def is_complete(self) -> bool:
        return self.ending is not None and self.ending.event == "completed"

    @property
    def detail(self) -> Mapping[str, Any]:
        """Of its ending."""
        return {} if self.ending is None else self.ending.detail

    @property
    def served_model(self) -> str | None:
        """Which one answered, where that is known."""
        served = self.detail.get("served")
        return self.model if served is None else str(served["model"])

    @property
    def answer(self) -> dict[str, Any]:
        """What was said, and why it ended."""
        said = AnswerContent.of(self.pieces)
        return {
            "content": said.text,
            "reasoning": said.reasoning,
            "tool_calls": [one.model_dump() for one in said.tool_calls],
            "logprobs": said.logprobs,
            "finish_reason": self.detail.get("finish_reason"),
        }


async def whole(steps: AsyncGenerator[Step, None]) -> Whole:
    """The answer once it has ended; what was void is not in it."""
    answer = Whole()
    async with aclosing(steps):
        async for step in steps:
            match step.event:
                case "started" | "restarted":
                    answer = Whole(model=step.detail.get("model"))
                case "token":
                    answer.pieces += step.deltas
                case "completed" | "failed" | "cancelled":
                    answer.ending = step
    return answer
