"""Server-sent events as they come over HTTP (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

# A carriage return at the very end may be half of a pair: what follows decides.
_LINE_END = re.compile(r"\r\n|\n|\r(?!\Z)")


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """``id`` is None where the event carries none."""

    event: str
    data: str
    id: str | None


async def lines_of(chunks: AsyncIterator[str]) -> AsyncIterator[str]:
    """Whole lines of a text that comes in pieces, ended by LF, CR LF or CR.

    Not by what else Python takes for the end of a line (and `httpx`'s lines with it): U+2028 and U+0085, for two, may
    stand in JSON as they are.
    """
    rest = ""
    async for chunk in chunks:
        *whole, rest = _LINE_END.split(rest + chunk)
        for line in whole:
            yield line
    if rest.endswith("\r"):
        yield rest[:-1]


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
