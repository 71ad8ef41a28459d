"""A backend that does as it is told, for tests and benches: given tokens, delays and faults.

What to do stands in ``metadata["script"]`` as JSON: a `Script`, or a list of them, one an attempt, of which the last
one holds for all later attempts; or in the newest message, after ``script: ``, for doors that carry no metadata.
Without it the answer is deterministic words at once.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from workers.inference.port import (
    BackendUnavailable,
    Counted,
    Delta,
    Finished,
    InferenceRequest,
    Item,
    Progress,
    RequestRefused,
)

DEFAULT_COUNT = 20
_WORDS = ("the", "rain", "falls", "on", "a", "quiet", "town", "and", "then", "light", "comes", "back", "to", "it")


class Script(BaseModel):
    """What one attempt does. Times are seconds; token i is due ``first_delay_s + i * delay_s`` after the start."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: tuple[str, ...] | None = Field(default=None, description="the deltas, in order; empty ones only count")
    count: int | None = Field(default=None, ge=0, description="so many made-up words, where `tokens` is not given")
    echo: bool = Field(default=False, description="say what the newest message says, one delta a word")
    first_delay_s: float = Field(default=0.0, ge=0)
    delay_s: float = Field(default=0.0, ge=0)
    fail_after: int | None = Field(default=None, ge=0, description="break off after so many tokens")
    fail_kind: Literal["refused", "unavailable"] = "unavailable"
    fail_reason: str = "scripted_fault"
    hang_after: int | None = Field(default=None, ge=0, description="say nothing more after so many tokens")
    finish_reason: Literal["stop", "length"] | None = Field(
        default=None, description="none: `length` where `max_tokens` was reached, else `stop`"
    )


_SCRIPTS: TypeAdapter[tuple[Script, ...] | Script] = TypeAdapter(tuple[Script, ...] | Script)


class ScriptedBackend:
    """``slots`` generations at a time; the others wait their turn. ``context_window`` is in words; None: no limit."""

    def __init__(self, *, slots: int, context_window: int | None = None) -> None:
        self._slots = asyncio.Semaphore(slots)
        self._context_window = context_window
        self._pauses: set[asyncio.Future[None]] = set()
        self._open = False

    async def start(self, progress: Progress) -> None:
        self._open = True
        progress("the scripted backend is ready", 1.0)

    async def generate(self, request: InferenceRequest) -> AsyncGenerator[Item]:
        self._check_open()
        script = _script(request)
        tokens, finish_reason, stop = _answer(request, script)
        input_tokens = _words(request)
        if self._context_window is not None and input_tokens >= self._context_window:
            raise RequestRefused(
                "context_length_exceeded",
                f"the prompt has {input_tokens} tokens, the context window {self._context_window}",
            )
        async with self._slots:
            self._check_open()
            start = asyncio.get_running_loop().time() + script.first_delay_s
            for index, token in enumerate(tokens):
                await self._fault(script, index)
                await self._pause_until(start + index * script.delay_s)
                if token:
                    yield Delta(token)
            await self._fault(script, len(tokens))
            yield Finished(finish_reason, input_tokens, len(tokens), stop=stop)

    async def count(self, request: InferenceRequest) -> Counted | None:
        return None if self._context_window is None else Counted(_words(request), self._context_window)

    async def close(self) -> None:
        self._open = False
        for pause in self._pauses:
            if not pause.done():
                pause.set_exception(_closed())

    def _check_open(self) -> None:
        if not self._open:
            raise _closed()

    async def _fault(self, script: Script, index: int) -> None:
        if script.fail_after == index:
            kind = RequestRefused if script.fail_kind == "refused" else BackendUnavailable
            raise kind(script.fail_reason, f"the script breaks off after {index} tokens")
        if script.hang_after == index:
            await self._pause_until(None)

    async def _pause_until(self, due: float | None) -> None:
        """Return at ``due`` in the loop's time, by way of the loop in any case; None: only close() ends it."""
        self._check_open()
        loop = asyncio.get_running_loop()
        if due is not None and due <= loop.time():
            await asyncio.sleep(0)
            return self._check_open()
        pause: asyncio.Future[None] = loop.create_future()
        timer = None if due is None else loop.call_at(due, _end_pause, pause)
        self._pauses.add(pause)
        try:
            return await pause
        finally:
            self._pauses.discard(pause)
            if timer is not None:
                timer.cancel()


def _words(request: InferenceRequest) -> int:
    return sum(len(message.text.split()) for message in request.messages)


def _end_pause(pause: asyncio.Future[None]) -> None:
    if not pause.done():
        pause.set_result(None)


def _closed() -> BackendUnavailable:
    return BackendUnavailable("engine_closed", "the scripted backend is not running")


def _script(request: InferenceRequest) -> Script:
    text = request.metadata.get("script")
    if text is None:
        said = request.messages[-1].text if request.messages else ""
        _, is_in_message, text = said.rpartition("script: ")
        if not is_in_message:
            return Script()
    try:
        scripts = _SCRIPTS.validate_json(text)
    except ValidationError as error:
        where = sorted({".".join(map(str, problem["loc"])) or "script" for problem in error.errors()})
        raise RequestRefused("invalid_script", f"the script is none: see {', '.join(where)}") from None
    if isinstance(scripts, Script):
        return scripts
    if not scripts:
        raise RequestRefused("invalid_script", "the script is an empty list: give one script an attempt")
    return scripts[min(request.attempt, len(scripts)) - 1]


def _answer(request: InferenceRequest, script: Script) -> tuple[list[str], Literal["stop", "length"], str | None]:
    """All tokens of the answer, how it ends, and the stop string that ended it. The whole answer is known, so nothing
    needs a look-ahead."""
    limit = request.parameters.max_tokens
    if limit is not None and limit < 1:
        raise RequestRefused("invalid_request", f"max_tokens is {limit}; ask for at least 1")
    if request.parameters.logprobs:
        raise RequestRefused("unsupported", "the prompt asks for logprobs, and a script has none")
    if script.tokens is not None:
        tokens = list(script.tokens)
    elif script.echo:
        tokens = re.findall(r"\s*\S+", request.messages[-1].text)
    else:
        wanted = script.count if script.count is not None else limit or DEFAULT_COUNT
        first = request.parameters.seed or 0
        tokens = [(" " if i else "") + _WORDS[(first + i) % len(_WORDS)] for i in range(wanted)]
    finish_reason: Literal["stop", "length"] = "stop"
    if limit is not None and len(tokens) >= limit:
        tokens = tokens[:limit]
        finish_reason = "length"
    text = "".join(tokens)
    ends = [(text.find(stop), stop) for stop in request.stop if stop and stop in text]
    if not ends:
        return tokens, script.finish_reason or finish_reason, None
    end, stop = min(ends)
    return _cut(tokens, end), script.finish_reason or "stop", stop


def _cut(tokens: list[str], length: int) -> list[str]:
    kept: list[str] = []
    for token in tokens:
        if length <= 0:
            break
        kept.append(token[:length])
        length -= len(token)
    return kept
