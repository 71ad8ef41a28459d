"""An answer's pieces as Anthropic's content blocks: one after another, each opened, filled and closed. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import orjson

from event_schemas.chat import Piece

Kind = Literal["thinking", "text", "tool_use"]


class Opened(NamedTuple):
    at: int
    kind: Kind
    id: str = ""
    name: str = ""


class Said(NamedTuple):
    at: int
    kind: Kind
    text: str


class Closed(NamedTuple):
    at: int
    kind: Kind


Mark = Opened | Said | Closed

_Place = tuple[Kind, int]
"""A block's kind, and which tool call it is."""


class Blocks:
    """Of one answer. ``shows_thinking``: what was thought is a block, too; else it is left out.

    Some servers send the arguments of several calls by turns. What comes for another block while the arguments of the
    open one are no JSON yet is held back until they are, or until the answer ends.
    """

    def __init__(self, *, shows_thinking: bool = True) -> None:
        self._shows_thinking = shows_thinking
        self._index = -1
        self._open: _Place | None = None
        self._arguments: list[str] = []
        self._begun: set[_Place] = set()
        self._held: list[Piece] = []

    def take(self, piece: Piece) -> Iterator[Mark]:
        place, text = _read(piece)
        if (place[0] == "thinking" and not self._shows_thinking) or (place[0] != "tool_use" and not text):
            return
        if place != self._open:
            if self._open is not None and self._open[0] == "tool_use" and not self._is_whole():
                self._held.append(piece)
                return
            if place[0] == "tool_use" and place in self._begun:
                return  # white space after arguments that were whole
            yield from self._close()
            yield self._opened(place, piece)
        if text:
            if place[0] == "tool_use":
                self._arguments.append(text)
            yield Said(self._index, place[0], text)
        if self._held and self._is_whole():
            held, self._held = self._held, []
            for one in held:
                yield from self.take(one)

    def end(self) -> Iterator[Mark]:
        """What is left once no more pieces come."""
        yield from self._close()
        while self._held:
            held, self._held = self._held, []
            for one in held:
                yield from self.take(one)
            yield from self._close()

    def _opened(self, place: _Place, piece: Piece) -> Opened:
        self._index += 1
        self._open = place
        self._arguments = []
        self._begun.add(place)
        if isinstance(piece, dict) and "tool_call" in piece:
            return Opened(self._index, place[0], piece["id"], piece["name"])
        return Opened(self._index, place[0])

    def _close(self) -> Iterator[Closed]:
        if self._open is not None:
            yield Closed(self._index, self._open[0])
            self._open = None

    def _is_whole(self) -> bool:
        return arguments_of("".join(self._arguments)) is not None


def _read(piece: Piece) -> tuple[_Place, str]:
    if isinstance(piece, str):
        return ("text", 0), piece
    if "text" in piece:
        return ("text", 0), piece["text"]
    if "reasoning" in piece:
        return ("thinking", 0), piece["reasoning"]
    return ("tool_use", piece["tool_call"]), piece["arguments"]


def arguments_of(written: str) -> dict[str, object] | None:
    """What the model wrote for a tool's input; None where that is no JSON object."""
    if not written.rstrip().endswith("}"):
        return None
    try:
        found = orjson.loads(written)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
