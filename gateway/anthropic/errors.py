"""What goes wrong, as Anthropic's clients read it: https://platform.claude.com/docs/en/api/errors"""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from fastapi import Response
from pydantic import BaseModel, Field

from backplane.web.problems import Problem, Shape
from gateway.anthropic.limits import in_their_words
from gateway.problems import field_of

VERSION_HEADER = "anthropic-version"

_STATUSES = {422: 400, 415: 400, 503: 529}
"""Where Anthropic has another one."""

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
"""Of other statuses below 500: invalid_request_error; above: api_error."""

_NOT_RETRIED = {"x-should-retry": "false"}
"""Its SDKs retry each 409 and 429 unless they are told that it is no use."""

_NO_THREADS = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
"""Tool runners of its SDKs ask for a thread, and send the whole conversation each time where they are told this."""

_FIELDS = (
    (re.compile(r"^stop(?=\.|$)"), "stop_sequences"),
    (re.compile(r"^tools\.(\d+)\.parameters(?=\.|$)"), r"tools.\1.input_schema"),
    (re.compile(r"^response_format(\.json_schema)?(?=\.|$)"), "output_config.format.schema"),
    (re.compile(r"^reasoning_effort$"), "thinking"),
    (re.compile(r"\b(content|system)\.(?:blocks|text)\b"), r"\1"),
)
"""What a field of Parley's is called there."""


class ErrorDetails(BaseModel):
    error_code: str = Field(description="for SDKs, which then do without", examples=["thread_unsupported_request"])
    unsupported: list[str] = Field(description="what is not done", examples=[["thread"]])


class AnthropicError(BaseModel):
    type: str = Field(description="the kind of error", examples=["invalid_request_error"])
    message: str = Field(description="what is wrong and what to do", examples=["model: There is no model 'claude-2'."])
    details: ErrorDetails | None = Field(
        None,
        description="only where a `thread` was asked for",
        examples=[{"error_code": "thread_unsupported_request", "unsupported": ["thread"]}],
    )


class AnthropicErrorBody(BaseModel):
    type: Literal["error"] = Field(description="always `error`", examples=["error"])
    error: AnthropicError = Field(description="the error")
    request_id: str = Field(
        description="the same as in the header `request-id`, for support",
        examples=["01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d12"],
    )


def answer(problem: Problem, request_id: str) -> Response:
    """``problem`` as a response of Anthropic's."""
    status = _status(problem)
    headers = {"request-id": request_id, "X-Request-ID": request_id} if request_id else {}
    if status == 409 or problem.type == "budget-exceeded":
        headers |= _NOT_RETRIED
    # Not orjson, which refuses the lone surrogates that a client's own field names may hold.
    body = json.dumps(document(problem, request_id), separators=(",", ":"))
    return Response(body, status, headers=headers | in_their_words(problem.headers), media_type="application/json")


def document(problem: Problem, request_id: str) -> dict[str, Any]:
    """The body of an error, and what a stream that breaks off says."""
    status = _status(problem)
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    error: dict[str, Any] = {"type": kind, "message": _message(problem)}
    if any(field_of(one["field"]) == "thread" for one in problem.extra.get("errors") or ()):
        error["details"] = _NO_THREADS
    return {"type": "error", "error": error, "request_id": request_id}


def _status(problem: Problem) -> int:
    return 404 if problem.type == "unknown-model" else _STATUSES.get(problem.status, problem.status)


def _message(problem: Problem) -> str:
    errors = problem.extra.get("errors")
    return (
        problem.detail if not errors else "; ".join(f"{_field(one['field'])}: {one['message']}" for one in errors[:5])
    )


def _field(path: str) -> str:
    path = field_of(path)
    for ours, theirs in _FIELDS:
        path = ours.sub(theirs, path)
    return path


_DESCRIPTIONS = {
    400: "The request is invalid; the message names where",
    401: "No valid API key",
    403: "The caller may not do this",
    404: "There is no such model, or it is not the caller's",
    409: "Not as things are",
    413: "The body is too large",
    429: "A limit is reached; `Retry-After` says when to try again",
    500: "The generation failed, or a fault of ours",
    502: "The answer does not fit its schema, or is no JSON where a tool's input has to be",
    529: "Temporarily unavailable; `Retry-After` says when to try again",
}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for these error statuses."""
    return {status: {"description": _DESCRIPTIONS[status], "model": AnthropicErrorBody} for status in statuses}


SHAPES = (
    Shape(re.compile(r"/v1/messages(/|$)"), answer),
    Shape(re.compile(r"/v1/models(/|$)"), answer, VERSION_HEADER),
)
