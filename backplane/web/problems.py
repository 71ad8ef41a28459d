"""Errors as RFC 9457 problem details, everywhere, with a stable ``type`` and the request's id."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from backplane.ports.bus import BusError, MessageTooLarge
from backplane.ports.database import DatabaseUnavailable
from backplane.ports.key_wrapping import WrappingUnavailable
from backplane.ports.token_stream import StreamUnavailable

logger = logging.getLogger(__name__)

TYPE_ROOT = "urn:parley:problem:"
MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """An answer other than the one asked for.

    ``type`` is the stable last part of the problem's type; ``extra`` become members of the document; ``headers`` go
    beside it. ``detail`` carries no secret and no prompt text.
    """

    def __init__(
        self, status: int, type: str, title: str, detail: str, *, headers: dict[str, str] | None = None, **extra: Any
    ) -> None:
        super().__init__(f"{status} {type}: {detail}")
        self.status = status
        self.type = type
        self.title = title
        self.detail = detail
        self.headers = headers or {}
        self.extra = extra


def not_found(what: str) -> Problem:
    """The one answer for what is not there and for what is somebody else's."""
    return Problem(404, "not-found", "Not found", f"There is no such {what}.")


def unavailable(what: str, detail: str, retry_after_s: int = 2) -> Problem:
    return Problem(
        503, "unavailable", "Temporarily unavailable", detail, headers={"Retry-After": str(retry_after_s)}, service=what
    )


class FieldError(BaseModel):
    field: str = Field(description="where, as a path", examples=["body.parameters.top_p"])
    message: str = Field(description="what is wrong with it", examples=["Input should be less than or equal to 1"])


class ProblemDocument(BaseModel):
    """RFC 9457."""

    type: str = Field(description="stable URI of the kind of problem", examples=[TYPE_ROOT + "invalid-request"])
    title: str = Field(description="short, the same for every problem of the type", examples=["Invalid request"])
    status: int = Field(description="the HTTP status", examples=[422])
    detail: str = Field(description="what is wrong here and what to do", examples=["1 field is invalid."])
    request_id: str = Field(
        description="the same as in the `X-Request-ID` header, for support",
        examples=["01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d12"],
    )
    errors: list[FieldError] | None = Field(default=None, description="each invalid field, where fields are the matter")


_DESCRIPTIONS = {
    400: "Malformed request",
    401: "No valid API key or session",
    403: "The caller may not do this: its role, or the limits of its key",
    404: "Not there, or not yours",
    409: "Not as things are: the key was used with another body, it is there already, not kept, or cannot be replayed",
    413: "The body is too large",
    415: "The body is not sent as `application/json`",
    422: "A field is invalid; the problem names it",
    429: "A limit is reached, or too many attempts; `Retry-After` says when to try again",
    503: "Temporarily unavailable; `Retry-After` says when to try again",
}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for these error statuses."""
    return {
        status: {
            "description": _DESCRIPTIONS[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
        }
        for status in statuses
    }


class Shape(NamedTuple):
    """How a door that speaks another protocol tells its clients of a problem."""

    paths: re.Pattern[str]
    """Matched at the beginning of a request's path."""
    answer: Callable[[Problem, str], Response]
    """Given the request's id."""
    header: str | None = None
    """Only requests that have it."""

    def fits(self, request: HTTPConnection) -> bool:
        return bool(self.paths.match(request.url.path)) and (self.header is None or self.header in request.headers)


def problem_response(request: HTTPConnection, problem: Problem) -> Response:
    request_id = request.scope.get("state", {}).get("request_id", "")
    shapes: Sequence[Shape] = request.app.state.shapes
    for shape in shapes:
        if shape.fits(request):
            return shape.answer(problem, request_id)
    document = {
        "type": TYPE_ROOT + problem.type,
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "request_id": request_id,
        **problem.extra,
    }
    # Not orjson, which refuses the lone surrogates that a client's own field names may hold.
    body = json.dumps(document, separators=(",", ":"))
    headers = {"X-Request-ID": request_id} if request_id else {}
    return Response(body, problem.status, headers=headers | problem.headers, media_type=MEDIA_TYPE)


_HTTP_ERRORS = {
    400: ("malformed-request", "Malformed request"),
    404: ("not-found", "Not found"),
    405: ("method-not-allowed", "Method not allowed"),
    413: ("too-large", "Too large"),
}


def _invalid_field(error: dict[str, Any]) -> dict[str, str]:
    if error["type"] == "json_invalid":
        return {"field": "body", "message": f"is not JSON: {error['ctx']['error']} at character {error['loc'][-1]}"}
    return {"field": ".".join(map(str, error["loc"])), "message": error["msg"].removeprefix("Value error, ")}


def _is_json(content_type: str) -> bool:
    subtype = content_type.partition(";")[0].strip().lower().removeprefix("application/")
    return subtype == "json" or subtype.endswith("+json")


def install(app: FastAPI, shapes: Sequence[Shape] = ()) -> None:
    """Make ``app`` answer every error with a problem document, or in the first of ``shapes`` that fits."""
    app.state.shapes = shapes

    @app.exception_handler(Problem)
    async def _problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return problem_response(request, error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        errors = [_invalid_field(one) for one in error.errors()]
        sent_as = request.headers.get("content-type", "nothing in particular")
        if errors[0]["field"] == "body" and not _is_json(sent_as):
            detail = f"The body was sent as {sent_as}: send JSON, with `Content-Type: application/json`."
            return problem_response(request, Problem(415, "unsupported-media-type", "Unsupported media type", detail))
        count = f"{len(errors)} field is" if len(errors) == 1 else f"{len(errors)} fields are"
        named = ", ".join(f"{one['field']}: {one['message']}" for one in errors[:5])
        return problem_response(
            request, Problem(422, "invalid-request", "Invalid request", f"{count} invalid. {named}", errors=errors)
        )

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kind, title = _HTTP_ERRORS.get(error.status_code, ("http-error", "HTTP error"))
        return problem_response(
            request, Problem(error.status_code, kind, title, error.detail, headers=dict(error.headers or {}))
        )

    @app.exception_handler(MessageTooLarge)
    async def _too_large(request: Request, error: Exception) -> Response:
        return problem_response(request, Problem(413, "too-large", "Too large", str(error)))

    def _outage(what: str) -> Any:
        async def answer(request: Request, error: Exception) -> Response:
            logger.warning("unavailable", extra={"action": "request_unavailable", "what": what, "cause": str(error)})
            return problem_response(request, unavailable(what, f"The {what} does not answer. Try again."))

        return answer

    app.add_exception_handler(DatabaseUnavailable, _outage("database"))
    # Where the bus refuses, or a topic is gone, an operator has to act; the caller can only come again.
    app.add_exception_handler(BusError, _outage("bus"))
    app.add_exception_handler(StreamUnavailable, _outage("token stream"))
    app.add_exception_handler(WrappingUnavailable, _outage("holder of the master key"))

    @app.exception_handler(Exception)
    async def _bug(request: Request, error: Exception) -> Response:
        return problem_response(
            request, Problem(500, "internal", "Internal error", "This is a fault of ours; it was logged.")
        )
