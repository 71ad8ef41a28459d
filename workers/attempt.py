"""One attempt at one generation: history, inference, tokens, and the event that says how it ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, nullcontext
from dataclasses import replace
from functools import partial
from uuid import UUID

from anyio import BrokenWorkerProcess
from prometheus_client import Counter

from backplane.ports.key_room import Full
from backplane.ports.token_stream import Frame, Kind
from backplane.security.content import DataKey
from event_schemas.chat import ChatMessage, Misfit, ResponseFormat
from event_schemas.codec import AnyEnvelope, encode
from event_schemas.generation import PromptContent, SubmitPrompt
from event_schemas.payload import Usage
from event_schemas.sources import SourceWish
from workers import estimate
from workers.afterwards import Completed, afterwards
from workers.checking import checked
from workers.claims import WrappedKeys
from workers.deltas import Deltas
from workers.facts import Facts
from workers.history import history_in_time
from workers.inference.port import (
    BackendError,
    BackendUnavailable,
    Counted,
    Delta,
    Finished,
    InferenceRequest,
    Item,
    Limits,
    NotServed,
    Reasoning,
    RequestRefused,
    ToolCallDelta,
)
from workers.opening import open_prompt
from workers.outcome import Broken, Repair, Stop, Unstarted
from workers.pace import Pace
from workers.ports import AttemptPorts
from workers.publication import Publication
from workers.scratchpad import Scratchpad
from workers.shape import Unfit, is_repairable, verdict
from workers.sources.choosing import PARAMETERS
from workers.suspension import is_kept
from workers.upstream import Leave, NoRoom, whole
from workers.window import Said, fitted

logger = logging.getLogger(__name__)

_tokens = Counter("parley_worker_tokens_total", "Tokens that backends gave, whatever became of their attempts")

_ANOTHER_MAY = frozenset(
    ("no_usable_key", "unknown_model", "unsupported", "context_length_exceeded", "request_too_large")
)
"""Why a backend refuses what another one may take. Whose own keys are refused has to hear of it."""


class Attempt:
    """Runs once. ``run`` returns the terminal event, Broken, Unstarted, Repair, or why it was stopped without an event.

    ``permit`` is the upstream's leave to ask. ``unfit`` is what the attempt before answered, where that did not fit its
    schema; ``repairs`` attempts were made because of that.
    """

    def __init__(
        self,
        ports: AttemptPorts,
        facts: Facts,
        prompt: SubmitPrompt,
        attempt: int,
        wrapped: WrappedKeys,
        permit: Leave = None,
        unfit: Unfit | None = None,
        repairs: int = 0,
    ) -> None:
        self._ports = ports
        self._unfit = unfit
        self._repairs = repairs
        self._permit = permit
        self._facts = facts
        self._prompt = prompt
        self._attempt = attempt
        self._wrapped = wrapped
        self._key: DataKey | None = None
        self._content: PromptContent | None = None
        self._window: int | None = None
        self._slid = self._forked = False
        self._pace = Pace(prompt.pool, ports.upstream.pool.listed(prompt.model))
        self._deltas = Deltas()
        self._heard = 0
        self._counted = 0
        self._scratchpad = Scratchpad() if prompt.scratchpad else None
        self._wanted: ResponseFormat | None = None
        self._finished: Finished | None = None
        self._publication = Publication(ports.publisher, str(facts.tenant_id))
        self._unsaid: AnyEnvelope | None = None
        self._asked = False
        self._inference: asyncio.Task[Misfit | None] | None = None
        self._stop: Stop | None = None
        self.ending = False
        self.leads_to: tuple[AnyEnvelope, ...] = ()
        """What is to be published with its end."""

    @property
    def generation_id(self) -> UUID:
        return self._prompt.generation_id

    @property
    def stopped(self) -> Stop | None:
        """Why it was told to stop, if it was."""
        return self._stop

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
        _tokens.inc(self._heard - self._counted)
        self._counted = self._heard

    def _say_started(self) -> None:
        if self._unsaid is not None:
            self._publication.say(encode(self._unsaid))
            self._unsaid = None

    async def run(self) -> AnyEnvelope | Broken | Unstarted | Repair | Stop:
        if not isinstance(self._permit, Full):
            # Said with its first tokens, or with its end: followers see the frame, and nobody waits for the event.
            self._unsaid = self._facts.started(self._attempt)
            owner = {"user_id": self._prompt.user_id, "key_id": self._prompt.key_id}
            self._show(Frame(Kind.STARTED, self._attempt, 0, detail={"model": self._prompt.model, **owner}))
        self._inference = asyncio.create_task(self._answer())
        if self._stop is not None:
            self._inference.cancel()
        try:
            misfit = await self._inference
        except asyncio.CancelledError:
            if self._stop is None:
                raise
            if self._stop is not Stop.CANCELLED:
                return self._stop
            self.ending = True
            return self._facts.cancelled(self._attempt, self.said, self._key, self._used())
        except RequestRefused as refused:
            if self._prompt.fallbacks and refused.reason in _ANOTHER_MAY:
                return self._broken(refused)
            self.ending = True
            return self._failed(refused.reason, str(refused))
        except NoRoom as full:
            return Unstarted(full.full)
        except BackendError as broken:
            return self._broken(broken)
        finished = self._finished
        assert finished is not None, "it came to its end"
        if misfit is not None:
            return self._misfit(misfit, finished)
        self.ending = True
        timing = self._pace.timing()
        assert self._key is not None and self._content is not None, "the prompt was opened before it was answered"  # noqa: PT018
        used, text = self._used(), self._deltas.answer.text
        answered = Completed(self._prompt, self._content, text, used, self._window, self._slid, self._forked)
        self.leads_to = afterwards(self._facts, answered, self._key, titles=self._ports.upstream.pool.titles)
        return self._facts.completed(self._attempt, finished.finish_reason, used, self._deltas, timing, self._key)

    def _misfit(self, misfit: Misfit, finished: Finished) -> AnyEnvelope | Repair:
        if is_repairable(misfit, finished.finish_reason) and self._repairs < self._prompt.repairs:
            return Repair(Unfit(self._attempt, self._deltas.answer.text, misfit), self._used())
        self.ending = True
        return self._failed(*verdict(misfit, finished.finish_reason, self._repairs))

    def _failed(self, reason: str, detail: str) -> AnyEnvelope:
        return self._facts.failed(self._attempt, reason, detail, self.said, self._key, self._used())

    def _broken(self, error: BackendError) -> Broken:
        away = isinstance(error, NotServed | RequestRefused)
        output_tokens = self._heard or (None if away else 0)
        return Broken(self._attempt, output_tokens, error.reason, str(error), away)

    def _used(self) -> Usage:
        finished = self._finished
        if finished is None or finished.input_tokens is None or finished.output_tokens is None:
            return self._facts.estimate(self._heard)
        return Usage(
            input_tokens=finished.input_tokens,
            output_tokens=finished.output_tokens,
            source="provider",
            cached_input_tokens=finished.cached_input_tokens,
            reasoning_tokens=finished.reasoning_tokens,
        )

    @property
    def said(self) -> Deltas | None:
        """None before anybody was asked."""
        return self._deltas if self._asked else None

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

    async def _answer(self) -> Misfit | None:
        """Why the answer does not fit its schema, where it has one."""
        try:
            finished = self._finished = await self._infer()
        finally:
            if self._scratchpad is not None and self._stop in (None, Stop.CANCELLED):
                for delta in self._scratchpad.rest():
                    self._tell_token(delta)
                self._deltas.scratchpad = self._scratchpad.text
        if self._wanted is None or self._wanted.json_schema is None or finished.finish_reason == "tool_calls":
            return None
        loose = self._ports.upstream.way(self._wanted) == "instruction"
        try:
            found = await checked(self._deltas.answer.text, self._wanted.json_schema, loose=loose)
        except BrokenWorkerProcess as error:
            raise BackendUnavailable("check_failed", "the process that checks answers was killed") from error
        if isinstance(found, Misfit):
            self._deltas.misfit = found
            return found
        self._deltas.json_span = found
        return None

    async def _infer(self) -> Finished:
        prompt = await open_prompt(self._ports.data_keys, self._facts.tenant_id, self._prompt, self._wrapped)
        self._key, self._content = prompt.key, prompt.content
        said = await history_in_time(self._ports.database, prompt.keys, self._prompt, prompt.content)
        request = prompt.request(self._prompt, self._attempt, said.without(0))
        self._wanted = request.response_format
        before: tuple[Finished, ...] = ()
        if prompt.content.sources and not isinstance(self._permit, Full):
            said, before = await self._with_sources(request, said, prompt.content.sources)
        request = await self._fitted(request, said)
        if self._wanted is not None and self._wanted.json_schema is not None:
            request = self._ports.upstream.shaped(request, self._unfit)
        states = self._ports.suspension if is_kept(self._prompt, prompt.content, said) else None
        asking = nullcontext(request) if states is None else states.taken_up(request, self._prompt, prompt.key)
        try:
            async with asking as request, aclosing(self._asks(request)) as items:
                async for item in items:
                    if isinstance(item, Finished):
                        if item.stop in request.stop:
                            self._deltas.stopped_by = request.stop.index(item.stop)
                        return item.after(*before)
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

    async def _with_sources(
        self, request: InferenceRequest, said: Said, wishes: tuple[SourceWish, ...]
    ) -> tuple[Said, tuple[Finished, ...]]:
        """``said`` with what ``wishes`` stand for, and what the model of ``request`` used to pick among them."""
        sources = self._ports.sources
        if sources is None:
            raise RequestRefused("source_unavailable", "this worker reads no sources")
        asks, said = partial(self._ask_first, request), said.with_its_question()
        gathered = await sources.resolve(wishes, said.own, self._facts.tenant_id, asks)
        self._deltas.sources, self._deltas.source_notes = gathered.sources, gathered.notes
        return replace(said, own=gathered.messages), gathered.asked

    async def _ask_first(
        self, prompt: InferenceRequest, message: ChatMessage, answer_format: ResponseFormat | None
    ) -> tuple[str, Finished]:
        """Another question to the model that is to answer ``prompt``, in the same attempt."""
        request = replace(
            prompt, messages=(message,), parameters=PARAMETERS, tools=(), response_format=answer_format, stop=()
        )
        said = await whole(self._asks(request))
        tokens = estimate.tokens(self._prompt)
        self._permit = await self._ports.upstream.permit_again(self._facts.tenant_id, tokens)
        return said

    def _asks(self, request: InferenceRequest) -> AsyncGenerator[Item]:
        permit, self._permit, self._asked = self._permit, None, True
        tokens, paid = estimate.tokens(self._prompt), partial(self._facts.paid, self._attempt)
        return self._ports.upstream.answer(request, self._facts.tenant_id, tokens, permit, paid)

    async def _fitted(self, request: InferenceRequest, said: Said) -> InferenceRequest:
        """``request`` with what of the conversation its model has room for."""
        upstream = self._ports.upstream

        async def count(messages: tuple[ChatMessage, ...]) -> Counted | None:
            return await upstream.count(replace(request, messages=messages))

        answer_tokens = self._prompt.parameters.max_tokens or upstream.pool.answer_tokens
        shown = await fitted(said, self._prompt.window, answer_tokens, count)
        self._facts.shown(self._attempt, left_out=shown.left_out)
        self._window, self._slid, self._forked = shown.window, shown.left_out > said.covered, said.forked
        return replace(request, messages=shown.messages)

    def _take(self, delta: Delta | Reasoning | ToolCallDelta) -> None:
        self._heard += 1
        if self._scratchpad is not None and isinstance(delta, Delta):
            for shown in self._scratchpad.feed(delta):
                self._tell_token(shown)
        else:
            self._tell_token(delta)

    def _tell_token(self, delta: Delta | Reasoning | ToolCallDelta) -> None:
        self._pace.token()
        seq, piece = self._deltas.append(delta)
        self._show(Frame(Kind.TOKEN, self._attempt, seq, (piece,)))

    def _show(self, frame: Frame) -> None:
        self._ports.streams.append(self._facts.tenant_id, self._prompt.generation_id, frame)
