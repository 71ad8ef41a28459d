"""Steps as Server-Sent Events. Bytes are put together by hand: this runs for every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from event_schemas.chat import Piece, text_of
from query_api.assembly import TOKEN, Step

SEPARATOR = "\n"
"""Between lines. JSON holds no line breaks of its own, so each event has one data line."""


def encode(step: Step) -> bytes:
    """One event, its id the cursor to resume from."""
    attempt, seq = step.cursor
    if step.event == TOKEN:
        body = orjson.dumps(_token(step.deltas) | {"seq": seq, "attempt": attempt})
    else:
        body = orjson.dumps(step.detail)
    return b"id: %d-%d\nevent: %b\ndata: %b\n\n" % (attempt, seq, step.event.encode(), body)


def _token(deltas: Sequence[Piece]) -> dict[str, Any]:
    body: dict[str, Any] = {"text": text_of(deltas)}
    reasoning = "".join(piece["reasoning"] for piece in deltas if isinstance(piece, dict) and "reasoning" in piece)
    calls = [piece for piece in deltas if isinstance(piece, dict) and "tool_call" in piece]
    if reasoning:
        body["reasoning"] = reasoning
    if calls:
        body["tool_calls"] = calls
    return body
