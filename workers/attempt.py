"""One attempt at one generation: history, inference, tokens, and the event that says how it ended."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing
from dataclasses import dataclass
from enum import Enum
from functools import partial
from uuid import UUID

from prometheus_client import Counter

from backplane.ports.bus import Publisher
from backplane.ports.database import Database, DatabaseUnavailable
from backplane.ports.key_room import Full
from backplane.ports.token_stream import Frame, Kind, StreamWriter
from backplane.security.content import CannotRead, DataKey, DataKeys
from event_schemas.chat import ChatMessage
from event_schemas.codec import AnyEnvelope, encode
from event_schemas.generation import SubmitPrompt
from event_schemas.payload import Usage
from workers import estimate
from workers.billing import Billing
from workers.claims import WrappedKeys
from workers.deltas import Deltas
from workers.facts import Facts, Timing
from workers.history import NotProjected, history
from workers.inference.port import (
    BackendError,
    BackendUnavailable,
    Delta,
    Finished,
    InferenceRequest,
    Limits,
    NotServed,
    Reasoning,
    RequestRefused,
    ToolCallDelta,
)
from workers.opening import Opened, open_prompt
from workers.publication import Publication
from workers.upstream import Leave, NoRoom, Upstream

logger = logging.getLogger(__name__)

_tokens = Counter("parley_worker_tokens_total", "Tokens that backends gave, whatever became of their attempts")

_HISTORY_DEADLINE_S = 30.0
_HISTORY_POLL_S = 0.05

_ANOTHER_MAY = frozenset(
    ("no_usable_key", "unknown_model", "unsupported", "context_length_exceeded", "request_too_large")
)
"""Why a backend refuses what another one may take. Whose own keys are refused has to hear of it."""


class Stop(Enum):
    """Why an attempt is told to stop."""

    CANCELLED = "its cancel was asked for"
    FENCED = "it is no longer this worker's"
    DRAINED = "the worker is closing"


@dataclass(frozen=True, slots=True)
class Broken:
    """The backend broke off ``attempt`` after ``output_tokens`` deltas, None where it never began; another attempt may
    succeed. ``away``: rather in another pool."""

    attempt: int
    output_tokens: int | None
    reason: str
    detail: str
    away: bool = False


@dataclass(frozen=True, slots=True)
class Unstarted:
    """Nobody could be asked any more, as ``full`` says; nothing was said."""

    full: Full


@dataclass(frozen=True, slots=True)
class AttemptPorts:
    upstream: Upstream
    billing: Billing
    publisher: Publisher
    streams: StreamWriter
    database: Database
    data_keys: DataKeys


class Attempt:
    """Runs once. ``run`` returns the terminal event, Broken, Unstarted, or why it was stopped without an event.

    ``permit`` is the upstream's leave to ask.
    """

    def __init__(
        self,
        ports: AttemptPorts,
        facts: Facts,
        prompt: SubmitPrompt,
        attempt: int,
        wrapped: WrappedKeys,
        permit: Leave = None,
    ) -> None:
        self._ports = ports
        self._permit = permit
        self._facts = facts
        self._prompt = prompt
        self._attempt = attempt
        self._wrapped = wrapped
        self._key: DataKey | None = None
        self._began = time.monotonic()
        self._first_token: float | None = None
        self._deltas = Deltas()
        self._counted = 0
        self._publication = Publication(ports.publisher, str(facts.tenant_id))
        self._unsaid: AnyEnvelope | None = None
        self._inference: asyncio.Task[Finished] | None = None
        self._stop: Stop | None = None
        self.ending = False

    @property
    def generation_id(self) -> UUID:
        return self._prompt.generation_id

    def stop(self, why: Stop) -> None:
        """Stop the backend's work. The first reason counts."""
        if self._stop is None and not self.ending:
            self._stop = why
            if self._inference is not None:
                self._inference.cancel()

    def emit(self) -> None:
        """Say what came to be since the last time. Called a few times a second."""
        self._count()
        self._say_started()
        taken = self._deltas.take()
        if taken is not None:
            assert self._key is not None, "the prompt was opened before anything was said"
            self._publication.say(encode(self._facts.tokens(self._attempt, *taken, self._key)))

    def _count(self) -> None:
        _tokens.inc(self._deltas.count - self._counted)
        self._counted = self._deltas.count

    def _say_started(self) -> None:
        if self._unsaid is not None:
            self._publication.say(encode(self._unsaid))
            self._unsaid = None

    async def run(self) -> AnyEnvelope | Broken | Unstarted | Stop:
        if not isinstance(self._permit, Full):
            # Said with its first tokens, or with its end: followers see the frame, and nobody waits for the event.
            self._unsaid = self._facts.started(self._attempt)
            owner = {"user_id": self._prompt.user_id, "key_id": self._prompt.key_id}
            self._show(Frame(Kind.STARTED, self._attempt, 0, detail={"model": self._prompt.model, **owner}))
        self._inference = asyncio.create_task(self._infer())
        if self._stop is not None:
            self._inference.cancel()
        try:
            finished = await self._inference
        except asyncio.CancelledError:
            if self._stop is None:
                raise
            if self._stop is not Stop.CANCELLED:
                return self._stop
            self.ending = True
            return self._facts.cancelled(self._attempt, self._said, self._key)
        except RequestRefused as refused:
            if self._prompt.fallbacks and refused.reason in _ANOTHER_MAY:
                return self._broken(refused)
            self.ending = True
            return self._facts.failed(self._attempt, refused.reason, str(refused), self._said, self._key)
        except NoRoom as full:
            return Unstarted(full.full)
        except BackendError as broken:
            return self._broken(broken)
        self.ending = True
        ended = time.monotonic()
        timing = Timing(
            first_token_ms=round(((self._first_token or ended) - self._began) * 1000),
            duration_ms=round((ended - self._began) * 1000),
        )
        assert self._key is not None, "the prompt was opened before it was answered"
        used = self._used(finished)
        return self._facts.completed(self._attempt, finished.finish_reason, used, self._deltas, timing, self._key)

    def _broken(self, error: BackendError) -> Broken:
        away = isinstance(error, NotServed | RequestRefused)
        output_tokens = self._deltas.count or (None if away else 0)
        return Broken(self._attempt, output_tokens, error.reason, str(error), away)

    def _used(self, finished: Finished) -> Usage:
        if finished.input_tokens is None or finished.output_tokens is None:
            return self._facts.estimate(self._deltas.count)
        return Usage(
            input_tokens=finished.input_tokens,
            output_tokens=finished.output_tokens,
            source="provider",
            cached_input_tokens=finished.cached_input_tokens,
            reasoning_tokens=finished.reasoning_tokens,
        )

    @property
    def _said(self) -> Deltas | None:
        """None before the prompt was opened, when nobody was asked."""
        return None if self._key is None else self._deltas

    async def tell(self, terminal: bytes) -> None:
        """Publish the terminal event, after what was said before. Tokens not emitted yet need no event: it has them."""
        self._say_started()
        self._publication.say(terminal)
        await self._publication.all_said()

    async def close(self) -> None:
        """Release what the attempt holds. What it had not published yet is dropped."""
        await self._publication.close()
        self._count()
        permit, self._permit = self._permit, None
        await self._ports.upstream.give_back(permit)

    async def _infer(self) -> Finished:
        prompt = await open_prompt(self._ports.data_keys, self._facts.tenant_id, self._prompt, self._wrapped)
        self._key = prompt.key
        request = InferenceRequest(
            generation_id=self._prompt.generation_id,
            attempt=self._attempt,
            model=self._prompt.model,
            messages=await self._history(prompt),
            parameters=self._prompt.parameters,
            metadata=prompt.content.metadata,
            tools=prompt.content.tools,
            response_format=prompt.content.response_format,
            stop=prompt.content.stop,
        )
        permit, self._permit = self._permit, None
        tokens, paid = estimate.tokens(self._prompt), partial(self._facts.paid, self._attempt)
        answer = self._ports.upstream.answer(request, self._facts.tenant_id, tokens, permit, paid)
        try:
            async with aclosing(answer) as items:
                async for item in items:
                    if isinstance(item, Finished):
                        return item
                    if not isinstance(item, Limits):
                        self._take(item)
                        if self._deltas.full:
                            return Finished("length", None, None)
        except (BackendError, asyncio.CancelledError):
            raise
        except Exception as bug:
            logger.exception("backend bug", extra={"action": "backend_bug", "generation_id": str(self.generation_id)})
            raise BackendUnavailable("backend_error", f"the backend raised {type(bug).__name__}") from bug
        raise BackendUnavailable("backend_error", "the backend ended without saying how")

    async def _history(self, prompt: Opened) -> tuple[ChatMessage, ...]:
        deadline = time.monotonic() + _HISTORY_DEADLINE_S
        while True:
            try:
                before = prompt.content, prompt.conversation
                return await history(self._ports.database, self._facts.tenant_id, self._prompt, *before)
            except CannotRead as error:
                raise RequestRefused("content_unreadable", str(error)) from None
            except (NotProjected, DatabaseUnavailable) as error:
                if time.monotonic() > deadline:
                    raise BackendUnavailable("history_unavailable", "the conversation could not be read") from error
                await asyncio.sleep(_HISTORY_POLL_S)

    def _take(self, delta: Delta | Reasoning | ToolCallDelta) -> None:
        if self._first_token is None:
            self._first_token = time.monotonic()
        seq, piece = self._deltas.append(delta)
        self._show(Frame(Kind.TOKEN, self._attempt, seq, (piece,)))

    def _show(self, frame: Frame) -> None:
        self._ports.streams.append(self._facts.tenant_id, self._prompt.generation_id, frame)
