"""Server-Sent Events as providers send them (WHATWG HTML, "Parsing an event stream"). Runs for every token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

MOST_BYTES = 16 * 1024 * 1024
"""Of one event; more than any provider sends."""


class EventTooLarge(ValueError):
    """An event of over MOST_BYTES."""


class Event(NamedTuple):
    name: bytes
    data: bytes


async def events(chunks: AsyncIterator[bytes]) -> AsyncIterator[Event]:
    """The events with data in ``chunks``, however they are cut. What is unfinished at the end is dropped, as the
    standard says. Raises EventTooLarge, and what ``chunks`` raises."""
    rest = b""
    name = b""
    data: list[bytes] = []
    async for chunk in chunks:
        rest += chunk
        if len(rest) > MOST_BYTES:
            raise EventTooLarge(f"an event has over {MOST_BYTES} bytes")
        lines = rest.splitlines(keepends=True)
        # A carriage return at the end may be half of a line's end.
        rest = b"" if rest.endswith(b"\n") else lines.pop() if lines else b""
        for line in lines:
            line = line.rstrip(b"\r\n")
            if not line:
                if data:
                    yield Event(name, data[0] if len(data) == 1 else b"\n".join(data))
                name = b""
                data = []
            elif line.startswith(b"data:"):
                data.append(line[6:] if line.startswith(b"data: ") else line[5:])
            elif line.startswith(b"event:"):
                name = line[6:].strip()
