"""Errors as FastAPI's own: `{"detail": …}`, which is a list where fields are the matter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fastapi import Response
from pydantic import BaseModel, Field

from backplane.web.problems import Problem


class WrongField(BaseModel):
    loc: list[str] = Field(description="where, as a path", examples=[["body", "message"]])
    msg: str = Field(description="what is wrong with it", examples=["Field required"])
    type: str = Field(description="stable name of the error", examples=["invalid-request"])


class DetailBody(BaseModel):
    detail: str | list[WrongField] = Field(
        description="what is wrong; a list, where fields are", examples=["Rate limit exceeded"]
    )


def detail_response(problem: Problem, request_id: str) -> Response:
    errors: Sequence[dict[str, str]] = problem.extra.get("errors", ())
    if problem.status == 422 and errors:
        return response(problem.status, [_wrong(one, problem.type) for one in errors], problem, request_id)
    return response(problem.status, problem.detail, problem, request_id)


def response(status: int, detail: str | list[dict[str, Any]], problem: Problem, request_id: str) -> Response:
    """``problem`` has the headers."""
    headers = {"X-Request-ID": request_id} if request_id else {}
    # Not orjson, which refuses the lone surrogates that a client's own field names may hold.
    body = json.dumps({"detail": detail}, separators=(",", ":"))
    return Response(body, status, headers | problem.headers, "application/json")


def _wrong(error: dict[str, str], kind: str) -> dict[str, Any]:
    path = error["field"].split(".")
    return {
        "loc": path if path[0] in ("body", "query", "path") else ["body", *path],
        "msg": error["message"],
        "type": kind,
    }


_DESCRIPTIONS = {
    400: "The request is malformed",
    401: "No valid API key",
    403: "No valid API key, or not one that may do this",
    404: "There is no such thing, or it is not the caller's",
    409: "Not as things are",
    413: "The body is too large",
    415: "The body is not sent as what is taken",
    422: "A field is invalid; `detail` says which",
    429: "A limit is reached; `Retry-After` says when to try again",
    500: "The generation failed, or a fault of ours",
    502: "The answer does not fit its schema",
    503: "Temporarily unavailable; `Retry-After` says when to try again",
}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for these error statuses."""
    return {status: {"description": _DESCRIPTIONS[status], "model": DetailBody} for status in statuses}
