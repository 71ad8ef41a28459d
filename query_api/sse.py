"""Steps as Server-Sent Events. Bytes are put together by hand: this runs for every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from event_schemas.chat import Piece, text_of
from query_api.assembly import TOKEN, Step


def encode(step: Step) -> bytes:
    """One event, its id the cursor to resume from."""
    attempt, seq = step.cursor
    if step.event == TOKEN:
        body = orjson.dumps(_token(step.deltas) | {"seq": seq, "attempt": attempt})
    elif (parsed := step.detail.get("parsed")) is not None:
        body = orjson.dumps({**step.detail, "parsed": orjson.Fragment(parsed)})
    else:
        body = orjson.dumps(step.detail)
    return b"id: %d-%d\nevent: %b\ndata: %b\n\n" % (attempt, seq, step.event.encode(), body)


def _token(deltas: Sequence[Piece]) -> dict[str, Any]:
    body: dict[str, Any] = {"text": text_of(deltas)}
    others = [piece for piece in deltas if not isinstance(piece, str)]
    if not others:
        return body
    reasoning = "".join(piece["reasoning"] for piece in others if "reasoning" in piece)
    calls = [piece for piece in others if "tool_call" in piece]
    logprobs = [token for piece in others if "text" in piece for token in piece["logprobs"]]
    if reasoning:
        body["reasoning"] = reasoning
    if calls:
        body["tool_calls"] = calls
    if logprobs:
        body["logprobs"] = logprobs
    return body
