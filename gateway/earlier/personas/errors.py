"""What goes wrong at the personas' door: a line of text where text is the answer, an object where JSON is."""

from __future__ import annotations

import json
import re
from typing import Any

from fastapi import Response
from pydantic import BaseModel, Field

from backplane.web.problems import Problem, Shape
from gateway.earlier.answering import message

_STATUSES = {422: 400, 415: 400}

TEXT = "text/plain; charset=utf-8"


class PersonaError(BaseModel):
    code: str = Field(description="stable name of the error", examples=["not_found"])
    message: str = Field(description="what is wrong and what to do", examples=["There is no such persona."])


class PersonaErrorBody(BaseModel):
    error: PersonaError = Field(description="the error")


def line(problem: Problem) -> str:
    return f"Error: {message(problem)}"


def _as_text(problem: Problem, request_id: str) -> Response:
    # A client's own field names may hold half a character.
    body = line(problem).encode(errors="replace")
    return Response(body, _status(problem), _headers(problem, request_id), TEXT)


def _as_json(problem: Problem, request_id: str) -> Response:
    told = {"code": problem.type.replace("-", "_"), "message": message(problem)}
    body = json.dumps({"error": told}, separators=(",", ":"))
    return Response(body, _status(problem), _headers(problem, request_id), "application/json")


def _status(problem: Problem) -> int:
    return _STATUSES.get(problem.status, problem.status)


def _headers(problem: Problem, request_id: str) -> dict[str, str]:
    return ({"X-Request-ID": request_id} if request_id else {}) | problem.headers


TEXTS = Shape(re.compile(r"/gpt(-socket)?/"), _as_text)
OBJECTS = Shape(re.compile(r"/(toil|describe|embedding)/|/platform/stats$"), _as_json)

_DESCRIPTIONS = {
    400: "The request is invalid; the message names where",
    401: "No valid API key",
    403: "The caller may not do this",
    404: "There is no such persona or session, or it is not the caller's",
    409: "Not as things are",
    413: "The body is too large",
    429: "A limit is reached; `Retry-After` says when to try again",
    500: "The generation failed, or a fault of ours",
    502: "The answer does not fit its schema",
    503: "Temporarily unavailable; `Retry-After` says when to try again",
}


def text_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for these error statuses, as lines of text."""
    content = {"text/plain": {"schema": {"type": "string"}, "example": "Error: There is no such persona."}}
    return {status: {"description": _DESCRIPTIONS[status], "content": content} for status in statuses}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for these error statuses, as objects."""
    return {status: {"description": _DESCRIPTIONS[status], "model": PersonaErrorBody} for status in statuses}
