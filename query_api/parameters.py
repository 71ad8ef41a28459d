"""Query parameters and headers of the endpoints: their types, checks and words for the API pages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import Header, Path, Query
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator

from backplane.ports.token_stream import Cursor
from query_api.cursors import ConversationCursor, parse_proof, parse_sequence

_CURSOR = "where the page begins: `next_cursor` of the page before"


def _valid(parse: Callable[[str], object]) -> AfterValidator:
    def check(text: str | None) -> str | None:
        if text:
            parse(text)
        return text

    return AfterValidator(check)


def _storable(text: str | None) -> str | None:
    if text is not None and "\0" in text:
        raise ValueError("must not contain NUL characters")
    return text


def _aware(time: datetime | None) -> datetime | None:
    return time.replace(tzinfo=UTC) if time is not None and time.tzinfo is None else time


def invalid(place: str, field: str, message: str) -> RequestValidationError:
    """The same answer as for a field that fails its own check."""
    return RequestValidationError([{"loc": (place, field), "msg": message, "type": "value_error"}])


GenerationId = Annotated[UUID, Path(description="the generation, as the 202 named it")]
ConversationId = Annotated[UUID, Path(description="the conversation, as the 202 named it")]

After = Annotated[
    str | None,
    Query(description="the `id` of the last event that was seen, `<attempt>-<seq>`", examples=["1-42"]),
    _valid(Cursor.parse),
]
LastEventId = Annotated[
    str | None,
    Header(description="the same as `after`, as browsers send it when they reconnect; goes before `after`"),
    _valid(Cursor.parse),
]

Search = Annotated[
    str | None,
    Query(max_length=200, description="part of the title, upper or lower case", examples=["greet"]),
    AfterValidator(_storable),
]
ConversationPageCursor = Annotated[str | None, Query(description=_CURSOR), _valid(ConversationCursor.parse)]
ConversationLimit = Annotated[int, Query(ge=1, le=100, description="most conversations of a page")]

OfUser = Annotated[UUID | None, Query(alias="user_id", description="only what this user used")]
OfKey = Annotated[UUID | None, Query(alias="key_id", description="only what was asked with this API key")]
OfModel = Annotated[
    str | None,
    Query(alias="model", max_length=200, description="only what was asked of this model", examples=["gemma-3-270m"]),
    AfterValidator(_storable),
]
OfPersona = Annotated[
    str | None,
    Query(alias="persona", max_length=200, description="only what was asked as this persona", examples=["translator"]),
    AfterValidator(_storable),
]
From = Annotated[
    datetime | None,
    Query(alias="from", description="beginning, inclusive; UTC where it names no zone; default: 30 days before `to`"),
    AfterValidator(_aware),
]
To = Annotated[
    datetime | None,
    Query(description="end, exclusive; UTC where it names no zone; default: now"),
    AfterValidator(_aware),
]

EventType = Annotated[
    str | None,
    Query(max_length=200, description="wire name of the type", examples=["generation.completed.v2"]),
    AfterValidator(_storable),
]
Subject = Annotated[
    str | None,
    Query(max_length=200, description="what it is about", examples=["generation:01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d11"]),
    AfterValidator(_storable),
]
Actor = Annotated[
    str | None,
    Query(max_length=200, description="who caused it", examples=["user:01990f6e-0000-7000-8000-000000000001"]),
    AfterValidator(_storable),
]
Since = Annotated[
    datetime | None,
    Query(description="written at this time or later; UTC where it names no zone", examples=["2026-03-01T00:00:00Z"]),
    AfterValidator(_aware),
]
Until = Annotated[
    datetime | None,
    Query(description="written before this time; UTC where it names no zone", examples=["2026-04-01T00:00:00Z"]),
    AfterValidator(_aware),
]
CorrelationId = Annotated[UUID | None, Query(description="id of the command that began the chain")]
EventPageCursor = Annotated[str | None, Query(description=_CURSOR, examples=["1042"]), _valid(parse_sequence)]
ProofCursor = Annotated[
    str | None,
    Query(description="where to go on: `next_cursor` of the proof before", examples=["1042-" + "5d" * 32]),
    _valid(parse_proof),
]
EventLimit = Annotated[int, Query(ge=1, le=500, description="most lines of a page; an export has all")]
