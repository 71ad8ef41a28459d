"""Frames and errors of OpenAI's Chat Completions API, and what Azure does otherwise.

Shapes: API reference, "The chat completion object" and "The chat completion chunk object"; errors: guide "Error codes";
headers: guide "Rate limits", section "Rate limits in headers". ``reasoning_content`` is what vLLM ("Reasoning Outputs")
and DeepSeek ("Thinking Mode") add.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from tests.providers.answer import Answer, Asked, Piece, likeliest
from tests.providers.frame import Frame
from tests.providers.limiter import Limiter, Room
from tests.providers.problem import Kind, Problem
from tests.providers.script import ReportedUsage

_ERRORS: dict[Kind, tuple[int, str, str | None]] = {
    "invalid": (400, "invalid_request_error", None),
    "unsupported_version": (404, "invalid_request_error", "404"),
    "context": (400, "invalid_request_error", "context_length_exceeded"),
    "key": (401, "invalid_request_error", "invalid_api_key"),
    "forbidden": (403, "invalid_request_error", "unsupported_country_region_territory"),
    "not_found": (404, "invalid_request_error", "model_not_found"),
    "rate_limit": (429, "requests", "rate_limit_exceeded"),
    "quota": (429, "insufficient_quota", "insufficient_quota"),
    "internal": (500, "server_error", None),
    "unavailable": (503, "server_error", "service_unavailable"),
    "overloaded": (529, "server_error", "overloaded"),
}
_FINISH = {"stop": "stop", "stop_sequence": "stop", "length": "length", "tool_calls": "tool_calls"}
_UNFILTERED = {name: {"filtered": False, "severity": "safe"} for name in ("hate", "self_harm", "sexual", "violence")}


def frames(answer: Answer, asked: Asked, head: dict[str, Any], reported: ReportedUsage, azure: bool) -> Iterator[Frame]:
    """The chunks of a streamed answer, ``[DONE]`` at last. ``head``: ``id``, ``created`` and ``model`` of each."""
    base = {**head, "object": "chat.completion.chunk", "system_fingerprint": "fp_44709d6fcb"}
    usage_field = {"usage": None} if asked.include_usage else {}

    def chunk(delta: dict[str, Any], finish: str | None = None, said: tuple[Piece, ...] = ()) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs(said, asked.logprobs), "finish_reason": finish}
        if azure:
            choice["content_filter_results"] = _UNFILTERED if "content" in delta else {}
        return {**base, "choices": [choice], **usage_field}

    if azure:
        prompt = [{"prompt_index": 0, "content_filter_results": _UNFILTERED}]
        first = {"choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": prompt}
        yield Frame("framing", first)
    speaks = any(piece.kind == "text" for piece in answer.pieces) or not answer.calls()
    yield Frame("framing", chunk({"role": "assistant", "content": "" if speaks else None}))
    for piece in answer.pieces:
        yield Frame("token", chunk(_delta(piece), said=(piece,)), piece=piece)
    yield Frame("closing", chunk({}, _FINISH[answer.ended]))
    if asked.include_usage:
        last = usage(answer, reported)
        yield Frame("closing", {**base, "choices": [], **last}, reported=last.get("usage"))
    yield Frame("closing", "[DONE]")


def body(answer: Answer, asked: Asked, head: dict[str, Any], reported: ReportedUsage) -> dict[str, Any]:
    """An answer that does not stream."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.said("text"), "refusal": None, "annotations": []}
    if reasoning := answer.said("reasoning"):
        message["reasoning_content"] = reasoning
    if calls := answer.calls():
        message["content"] = message["content"] or None
        message["tool_calls"] = [
            {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
            for call_id, name, arguments in calls
        ]
    choice = {
        "index": 0,
        "message": message,
        "logprobs": logprobs(answer.pieces, asked.logprobs),
        "finish_reason": _FINISH[answer.ended],
    }
    return {**head, "object": "chat.completion", "choices": [choice], **usage(answer, reported)} | {
        "service_tier": "default"
    }


def logprobs(pieces: Iterable[Piece], top: int | None) -> dict[str, Any] | None:
    """Of the text in ``pieces``, with ``top`` of the likeliest tokens in each place; None where there are none."""
    tokens = [likeliest(piece.text, top) for piece in pieces if piece.kind == "text"] if top is not None else []
    if not tokens:
        return None
    content = [{**_logprob(*ranked[0]), "top_logprobs": [_logprob(*one) for one in ranked[:top]]} for ranked in tokens]
    return {"content": content, "refusal": None}


def _logprob(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": [*token.encode()]}


def usage(answer: Answer, reported: ReportedUsage) -> dict[str, Any]:
    """The field ``usage``; nothing where it is to be missing."""
    counted = answer.counted
    right = _usage(counted.input, counted.output, counted.cached, counted.reasoning)
    match reported:
        case "right":
            return {"usage": right}
        case "short":
            return {"usage": _usage(counted.input, counted.output // 2, counted.cached, 0)}
        case "negative":
            return {"usage": _usage(-counted.input, -counted.output, 0, 0)}
        case "strings":
            return {"usage": {name: str(n) for name, n in right.items() if isinstance(n, int)}}
        case "null":
            return {"usage": None}
        case "missing":
            return {}


def error(problem: Problem, azure: bool = False) -> tuple[int, dict[str, Any]]:
    """Status and body of an error."""
    status, kind, code = _ERRORS[problem.kind]
    if azure and problem.kind in {"key", "rate_limit", "unsupported_version"}:
        return status, {"error": {"code": str(status), "message": problem.message}}
    if problem.kind == "rate_limit" and problem.param == "tokens":
        kind = "tokens"
    param = problem.param if problem.kind in {"invalid", "context"} else None
    return status, {"error": {"message": problem.message, "type": kind, "param": param, "code": problem.code or code}}


def stream_error() -> dict[str, Any]:
    """What is sent in a stream that fails."""
    return error(Problem("internal", "The server had an error while processing your request. Sorry about that!"))[1]


def limit_headers(limiter: Limiter) -> dict[str, str]:
    """``x-ratelimit-*`` of the limits that the key has."""
    headers: dict[str, str] = {}
    for name, room in (("requests", limiter.requests()), ("tokens", limiter.tokens())):
        if isinstance(room, Room):
            headers[f"x-ratelimit-limit-{name}"] = str(room.limit)
            headers[f"x-ratelimit-remaining-{name}"] = str(room.remaining)
            headers[f"x-ratelimit-reset-{name}"] = duration(room.reset_s)
    return headers


def retry_headers(seconds: float) -> dict[str, str]:
    """Whole seconds, and milliseconds, both rounded up."""
    return {"retry-after": str(math.ceil(seconds)), "retry-after-ms": str(math.ceil(seconds * 1000))}


def duration(seconds: float) -> str:
    """As OpenAI writes it: ``120ms``, ``1.5s``, ``6m0s``, ``1h0m0s``."""
    milliseconds = math.ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{rest / 1000:g}s"


def _delta(piece: Piece) -> dict[str, Any]:
    match piece.kind:
        case "reasoning":
            return {"reasoning_content": piece.text}
        case "text":
            return {"content": piece.text}
        case "call":
            function = {"name": piece.text, "arguments": ""}
            return {
                "tool_calls": [{"index": piece.call, "id": piece.call_id, "type": "function", "function": function}]
            }
        case "arguments":
            return {"tool_calls": [{"index": piece.call, "function": {"arguments": piece.text}}]}


def _usage(prompt: int, completion: int, cached: int, reasoning: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
