"""What is said between a worker and an engine in a process of its own: JSON, each frame after its length.

to the engine     ["serve", pool's name, its settings, LLM_… settings], then ["ask", number, request],
                  ["count", number, request], ["stop", number]
from the engine   ["progress", doing, share], then ["ready"] or ["broken", 0, …]
                  ["delta", number, text, logprobs], and last ["finished", number, …],
                  ["counted", number, tokens, window] or ["broken", number, kind, reason, message]
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import orjson
from pydantic import TypeAdapter

from workers.inference.port import BackendError, BackendUnavailable, Finished, InferenceRequest, RequestRefused

Frame = list[Any]

_LENGTH = 4
_REQUEST = TypeAdapter(InferenceRequest)
_ERRORS: dict[str, type[BackendError]] = {kind.__name__: kind for kind in (BackendUnavailable, RequestRefused)}


def packed(*frame: Any) -> bytes:
    """One frame as it is sent."""
    body = orjson.dumps(frame)
    return len(body).to_bytes(_LENGTH, "big") + body


async def read_frame(reader: asyncio.StreamReader) -> Frame | None:
    """The next frame, None where the other side is gone."""
    try:
        length = int.from_bytes(await reader.readexactly(_LENGTH), "big")
        frame: Frame = orjson.loads(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return frame


def question(what: Literal["ask", "count"], number: int, request: InferenceRequest) -> bytes:
    """As it is sent. Raises RequestRefused."""
    try:
        return packed(what, number, _REQUEST.dump_python(request, mode="json"))
    except TypeError:
        raise RequestRefused("invalid_request", "the prompt holds half a surrogate pair; send valid Unicode") from None


def to_request(told: Any) -> InferenceRequest:
    return _REQUEST.validate_python(told)


def from_error(error: BackendError) -> Frame:
    kind = RequestRefused if isinstance(error, RequestRefused) else BackendUnavailable
    return [kind.__name__, error.reason, str(error)]


def to_error(kind: str, reason: str, message: str) -> BackendError:
    return _ERRORS[kind](reason, message)


def from_finished(finished: Finished) -> Frame:
    return [finished.finish_reason, finished.input_tokens, finished.output_tokens]


def to_finished(told: Frame) -> Finished:
    return Finished(*told)
