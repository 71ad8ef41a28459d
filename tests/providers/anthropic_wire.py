"""Events and errors of Anthropic's Messages API.

Shapes: API reference, "Messages"; events: guide "Streaming Messages"; errors: API reference, "Errors"; headers: API
reference, "Rate limits", section "Response headers".
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from tests.providers.answer import Answer, Piece
from tests.providers.frame import Frame
from tests.providers.limiter import Limiter
from tests.providers.problem import Kind, Problem
from tests.providers.script import ReportedUsage

_ERRORS: dict[Kind, tuple[int, str]] = {
    "invalid": (400, "invalid_request_error"),
    "unsupported_version": (400, "invalid_request_error"),
    "context": (400, "invalid_request_error"),
    "key": (401, "authentication_error"),
    "forbidden": (403, "permission_error"),
    "not_found": (404, "not_found_error"),
    "rate_limit": (429, "rate_limit_error"),
    "quota": (402, "billing_error"),
    "internal": (500, "api_error"),
    "unavailable": (503, "api_error"),
    "overloaded": (529, "overloaded_error"),
}
_STOP = {"stop": "end_turn", "stop_sequence": "stop_sequence", "length": "max_tokens", "tool_calls": "tool_use"}
_SIGNATURE = "EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pkiMOYds"
_BLOCK = {"reasoning": "thinking", "text": "text", "call": "tool_use", "arguments": "tool_use"}


def frames(answer: Answer, head: dict[str, Any], reported: ReportedUsage) -> Iterator[Frame]:
    """The events of a streamed answer. ``head``: ``id`` and ``model`` of the message."""
    message = {**head, "type": "message", "role": "assistant", "content": [], "stop_reason": None}
    yield Frame("framing", {"type": "message_start", "message": {**message, "stop_sequence": None, **_start(answer)}})
    index = -1
    block: tuple[str, int] | None = None
    for piece in answer.pieces:
        if block != (_BLOCK[piece.kind], piece.call):
            if block is not None:
                yield from _stop(index, block[0])
            index += 1
            block = (_BLOCK[piece.kind], piece.call)
            start = {"type": "content_block_start", "index": index, "content_block": _started(piece)}
            if piece.kind == "call":
                # The tool's name is a token, and comes in this event.
                yield Frame("token", start, piece=piece)
                yield _delta(index, {"type": "input_json_delta", "partial_json": ""})
            else:
                yield Frame("framing", start)
            if index == 0:
                yield Frame("framing", {"type": "ping"})
        if piece.kind == "reasoning":
            yield _delta(index, {"type": "thinking_delta", "thinking": piece.text}, piece)
        elif piece.kind == "text":
            yield _delta(index, {"type": "text_delta", "text": piece.text}, piece)
        elif piece.kind == "arguments":
            yield _delta(index, {"type": "input_json_delta", "partial_json": piece.text}, piece)
    if block is not None:
        yield from _stop(index, block[0])
    last = usage(answer, reported)
    delta = {"stop_reason": _STOP[answer.ended], "stop_sequence": answer.stop_sequence}
    yield Frame("closing", {"type": "message_delta", "delta": delta, **last}, reported=last.get("usage"))
    yield Frame("closing", {"type": "message_stop"})


def body(answer: Answer, head: dict[str, Any], reported: ReportedUsage) -> dict[str, Any]:
    """An answer that does not stream."""
    content: list[dict[str, Any]] = []
    if thinking := answer.said("reasoning"):
        content.append({"type": "thinking", "thinking": thinking, "signature": _SIGNATURE})
    if text := answer.said("text"):
        content.append({"type": "text", "text": text})
    for call_id, name, arguments in answer.calls():
        # An answer that ends within a call has no JSON yet.
        content.append({"type": "tool_use", "id": call_id, "name": name, "input": _parsed(arguments)})
    last = usage(answer, reported)
    if isinstance(last.get("usage"), dict):
        last["usage"] = {**_start(answer)["usage"], **last["usage"]}
    return {
        **head,
        "type": "message",
        "role": "assistant",
        "content": content,
        "stop_reason": _STOP[answer.ended],
        "stop_sequence": answer.stop_sequence,
        **last,
    }


def usage(answer: Answer, reported: ReportedUsage) -> dict[str, Any]:
    """The field ``usage`` of the last ``message_delta``: cumulative; nothing where it is to be missing."""
    output = answer.counted.output
    match reported:
        case "right":
            return {"usage": {"output_tokens": output}}
        case "short":
            return {"usage": {"output_tokens": output // 2}}
        case "negative":
            return {"usage": {"output_tokens": -output}}
        case "strings":
            return {"usage": {"output_tokens": str(output)}}
        case "null":
            return {"usage": None}
        case "missing":
            return {}


def error(problem: Problem, request_id: str) -> tuple[int, dict[str, Any]]:
    """Status and body of an error."""
    status, kind = _ERRORS[problem.kind]
    return status, {"type": "error", "error": {"type": kind, "message": problem.message}, "request_id": request_id}


def stream_error() -> dict[str, Any]:
    """The event of a stream that fails."""
    return {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


def limit_headers(limiter: Limiter) -> dict[str, str]:
    """``anthropic-ratelimit-*`` of the limits that the key has; its one limit of tokens stands for input and output."""
    headers: dict[str, str] = {}
    tokens = limiter.tokens()
    rooms = {"requests": limiter.requests(), "tokens": tokens, "input-tokens": tokens, "output-tokens": tokens}
    for name, room in rooms.items():
        if room is not None:
            # Without a fraction of a second, so rounded up: nobody may come too early.
            reset = datetime.fromtimestamp(math.ceil(time.time() + room.reset_s), UTC)
            headers[f"anthropic-ratelimit-{name}-limit"] = str(room.limit)
            headers[f"anthropic-ratelimit-{name}-remaining"] = str(room.remaining)
            headers[f"anthropic-ratelimit-{name}-reset"] = reset.strftime("%Y-%m-%dT%H:%M:%SZ")
    return headers


def retry_headers(seconds: float) -> dict[str, str]:
    """Whole seconds, rounded up."""
    return {"retry-after": str(math.ceil(seconds))}


def _start(answer: Answer) -> dict[str, Any]:
    counted = answer.counted
    return {
        "usage": {
            "input_tokens": counted.input - counted.cached - counted.cache_written,
            "cache_creation_input_tokens": counted.cache_written,
            "cache_read_input_tokens": counted.cached,
            "output_tokens": min(1, counted.output),
        }
    }


def _started(piece: Piece) -> dict[str, Any]:
    match piece.kind:
        case "reasoning":
            return {"type": "thinking", "thinking": "", "signature": ""}
        case "text":
            return {"type": "text", "text": ""}
        case _:
            return {"type": "tool_use", "id": piece.call_id, "name": piece.text, "input": {}}


def _delta(index: int, delta: dict[str, Any], piece: Piece | None = None) -> Frame:
    event = {"type": "content_block_delta", "index": index, "delta": delta}
    return Frame("framing" if piece is None else "token", event, piece=piece)


def _stop(index: int, block: str) -> Iterator[Frame]:
    if block == "thinking":
        yield _delta(index, {"type": "signature_delta", "signature": _SIGNATURE})
    yield Frame("framing", {"type": "content_block_stop", "index": index})


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except json.JSONDecodeError:
        return {}
