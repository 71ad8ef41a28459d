"""What goes wrong, as OpenAI's clients read it: https://platform.openai.com/docs/guides/error-codes."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson
from fastapi import Response
from pydantic import BaseModel, Field

from backplane.web.problems import Problem, Shape
from gateway.problems import field_of, in_brackets

PATHS = re.compile(r"/v1/(chat/completions|completions|models|embeddings|responses)(/|$)")

_STATUSES = {422: 400, 415: 400}
"""Where OpenAI has another one."""

_TYPES = {
    401: "invalid_request_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}

_CODES = {
    "unauthorized": "invalid_api_key",
    "unknown-model": "model_not_found",
    "model-not-allowed": "model_not_found",
    "rate-limit-exceeded": "rate_limit_exceeded",
    "budget-exceeded": "insufficient_quota",
    "context-length-exceeded": "context_length_exceeded",
}

_NOT_RETRIED = {"x-should-retry": "false"}
"""Its SDKs retry each 409 and 429 unless they are told that it is no use."""


class OpenAIError(BaseModel):
    message: str = Field(description="what is wrong and what to do", examples=["There is no model 'gpt-17'."])
    type: str = Field(description="the kind of error", examples=["invalid_request_error"])
    param: str | None = Field(description="which parameter is meant, where one is", examples=["model"])
    code: str | None = Field(description="stable name of the error", examples=["model_not_found"])


class OpenAIErrorBody(BaseModel):
    error: OpenAIError = Field(description="the error")


def answer(problem: Problem, request_id: str) -> Response:
    """``problem`` as a response of OpenAI's."""
    status = _status(problem)
    headers = {"X-Request-ID": request_id} if request_id else {}
    if status == 409 or problem.type == "budget-exceeded":
        headers |= _NOT_RETRIED
    # Not orjson, which refuses the lone surrogates that a client's own field names may hold.
    body = json.dumps(document(problem), separators=(",", ":"))
    return Response(body, status, headers=headers | problem.headers, media_type="application/json")


def json_response(body: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), headers=headers, media_type="application/json")


def _status(problem: Problem) -> int:
    return 404 if problem.type == "unknown-model" else _STATUSES.get(problem.status, problem.status)


def document(problem: Problem) -> dict[str, Any]:
    """The body of an error, and what a stream that breaks off says."""
    status = _status(problem)
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    if problem.type == "budget-exceeded":
        kind = "insufficient_quota"
    code = _CODES.get(problem.type, problem.type.replace("-", "_"))
    return {"error": {"message": _message(problem), "type": kind, "param": _param(problem), "code": code}}


def _message(problem: Problem) -> str:
    errors = problem.extra.get("errors")
    return problem.detail if not errors else "; ".join(f"{_path(one['field'])}: {one['message']}" for one in errors[:5])


def _param(problem: Problem) -> str | None:
    errors = problem.extra.get("errors")
    return _path(errors[0]["field"]) if errors else None


def _path(field: str) -> str:
    """``body.messages.0.content`` as ``messages[0].content``."""
    return in_brackets(field_of(field))


_DESCRIPTIONS = {
    400: "The request is invalid; `param` names where",
    401: "No valid API key",
    403: "The caller may not do this",
    404: "There is no such model, or it is not the caller's",
    409: "Not as things are",
    413: "The body is too large",
    429: "A limit is reached; `Retry-After` says when to try again",
    500: "The generation failed, or a fault of ours",
    502: "The answer does not fit its schema",
    503: "Temporarily unavailable; `Retry-After` says when to try again",
}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for these error statuses."""
    return {status: {"description": _DESCRIPTIONS[status], "model": OpenAIErrorBody} for status in statuses}


SHAPE = Shape(PATHS, answer)
