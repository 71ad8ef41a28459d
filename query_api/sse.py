"""Steps as Server-Sent Events. Bytes are put together by hand: this runs for every token."""

from __future__ import annotations

import orjson

from query_api.assembly import TOKEN, Step

SEPARATOR = "\n"
"""Between lines. JSON holds no line breaks of its own, so each event has one data line."""


def encode(step: Step) -> bytes:
    """One event, its id the cursor to resume from."""
    attempt, seq = step.cursor
    if step.event == TOKEN:
        body = orjson.dumps({"text": "".join(step.deltas), "seq": seq, "attempt": attempt})
    else:
        body = orjson.dumps(step.detail)
    return b"id: %d-%d\nevent: %b\ndata: %b\n\n" % (attempt, seq, step.event.encode(), body)
