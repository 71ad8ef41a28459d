"""Server-sent events as they come over HTTP (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """``id`` is None where the event carries none."""

    event: str
    data: str
    id: str | None


async def events(lines: AsyncIterator[str]) -> AsyncIterator[ServerSentEvent]:
    """Whole events only: what a broken connection cut off is dropped. Comments are left out."""
    event = "message"
    data: list[str] = []
    last_id: str | None = None
    async for line in lines:
        if not line:
            if data:
                yield ServerSentEvent(event, "\n".join(data), last_id)
            event, data, last_id = "message", [], None
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "event":
                event = value
            case "data":
                data.append(value)
            case "id":
                last_id = value
