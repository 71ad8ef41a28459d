"""Server-Sent Events out of the pieces in which they arrive."""

from __future__ import annotations

from typing import NamedTuple


class Event(NamedTuple):
    name: bytes
    id: bytes
    data: bytes


class EventParser:
    """Takes lines that end with a line feed, as Parley sends them. Comments are dropped."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[Event]:
        """The events that ``piece`` completes, in order."""
        *blocks, self._rest = (self._rest + piece).split(b"\n\n")
        return [event for block in blocks if (event := _event(block)) is not None]


def _event(block: bytes) -> Event | None:
    name = identifier = data = b""
    for line in block.split(b"\n"):
        field, _, value = line.partition(b": ")
        if field == b"data":
            data = value
        elif field == b"event":
            name = value
        elif field == b"id":
            identifier = value
    return Event(name, identifier, data) if name else None
