"""What a model says, as the items of a response: messages, reasoning and calls of tools.

https://platform.openai.com/docs/api-reference/responses/object
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple
from uuid import UUID

from event_schemas.chat import Piece
from event_schemas.logprobs import TokenLogprob
from query_api.chat_completion import token_logprob

Json = dict[str, Any]

_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc"}
_PART_AT: dict[str, Json] = {"message": {"content_index": 0}, "reasoning": {"summary_index": 0}, "function_call": {}}
_SAID = {
    "message": "response.output_text",
    "reasoning": "response.reasoning_summary_text",
    "function_call": "response.function_call_arguments",
}
_PART = {"message": "response.content_part", "reasoning": "response.reasoning_summary_part"}


class Told(NamedTuple):
    """An event of an item, without its number."""

    item: int
    kind: str
    type: str
    body: Json


def item_id(kind: str, generation_id: UUID, attempt: int, item: int) -> str:
    """The same whoever tells of it."""
    return f"{_PREFIXES[kind]}_{generation_id.hex}_{attempt}_{item}"


def void_item(kind: str, id: str, call_id: str = "", name: str = "") -> Json:
    """An item that its attempt left: nothing of what it said counts."""
    if kind == "message":
        return {"id": id, "type": kind, "status": "incomplete", "role": "assistant", "content": []}
    if kind == "reasoning":
        return {"id": id, "type": kind, "status": "incomplete", "summary": []}
    return {"id": id, "type": kind, "status": "incomplete", "call_id": call_id, "name": name, "arguments": ""}


@dataclass(slots=True)
class _Item:
    id: str
    kind: str
    call_id: str = ""
    name: str = ""
    call: int | None = None
    """Which of the answer's calls it is."""
    status: str = "in_progress"
    said: list[str] = field(default_factory=list)
    logprobs: list[Json] = field(default_factory=list)

    @property
    def document(self) -> Json:
        head = {"id": self.id, "type": self.kind, "status": self.status}
        is_new = self.status == "in_progress"
        if self.kind == "message":
            return {**head, "role": "assistant", "content": [] if is_new else [self.part]}
        if self.kind == "reasoning":
            return {**head, "summary": [] if is_new else [self.part]}
        return {**head, "call_id": self.call_id, "name": self.name, "arguments": "".join(self.said)}

    @property
    def part(self) -> Json:
        text = "".join(self.said)
        if self.kind == "message":
            return {"type": "output_text", "text": text, "annotations": [], "logprobs": self.logprobs}
        return {"type": "summary_text", "text": text}

    @property
    def at(self) -> Json:
        return {"item_id": self.id, **_PART_AT[self.kind]}


class Output:
    """The items of one attempt. What it tells is the same however its pieces come grouped: each is an event of its own.

    A message or reasoning is done when something else begins; calls are done together, since some models write them by
    turns.
    """

    def __init__(self, generation_id: UUID, attempt: int) -> None:
        self._generation_id = generation_id
        self._attempt = attempt
        self._items: list[_Item] = []

    @classmethod
    def of(cls, generation_id: UUID, attempt: int, pieces: Sequence[Piece], status: str) -> list[Json]:
        """The items of an answer that has ended; ``status`` as for ``end``."""
        output = cls(generation_id, attempt)
        deque(chain(*map(output.take, pieces), output.end(status)), maxlen=0)
        return output.items

    @property
    def items(self) -> list[Json]:
        return [one.document for one in self._items]

    @property
    def left(self) -> list[tuple[int, Json]]:
        """Those that are being written, with their places, as they are where their attempt leaves them."""
        return [
            (at, void_item(one.kind, one.id, one.call_id, one.name))
            for at, one in enumerate(self._items)
            if one.status == "in_progress"
        ]

    def take(self, piece: Piece) -> Iterator[Told]:
        """What one more delta tells."""
        logprobs: list[TokenLogprob] = []
        if isinstance(piece, str):
            kind, call, words = "message", None, piece
        elif "text" in piece:
            kind, call, words, logprobs = "message", None, piece["text"], piece["logprobs"]
        elif "reasoning" in piece:
            kind, call, words = "reasoning", None, piece["reasoning"]
        else:
            kind, call, words = "function_call", piece["tool_call"], piece["arguments"]
        at = self._place_of(kind, call)
        if at is None:
            if call is None or (self._items and self._items[-1].call is None):
                yield from self._close("completed")
            at = len(self._items)
            one = _Item(item_id(kind, self._generation_id, self._attempt, at), kind, call=call)
            if isinstance(piece, dict) and "tool_call" in piece:
                one.call_id, one.name = piece.get("id", one.id), piece.get("name", "")
            self._items.append(one)
            yield from self._opened(at, one)
        one = self._items[at]
        one.said.append(words)
        body = {**one.at, "delta": words}
        if kind == "message":
            body["logprobs"] = [token_logprob(each) for each in logprobs]
            one.logprobs += body["logprobs"]
        yield Told(at, kind, f"{_SAID[kind]}.delta", body)

    def end(self, status: str) -> Iterator[Told]:
        """End the answer, whose ``status`` is completed, incomplete, failed or cancelled. One that came to its end has
        a message at least."""
        if not self._items and status in ("completed", "incomplete"):
            self._items.append(_Item(item_id("message", self._generation_id, self._attempt, 0), "message"))
            yield from self._opened(0, self._items[0])
        yield from self._close("completed" if status == "completed" else "incomplete")

    def _close(self, status: str) -> Iterator[Told]:
        """End what is being written."""
        for at, one in enumerate(self._items):
            if one.status == "in_progress":
                one.status = status
                yield from self._closed(at, one)

    def _closed(self, at: int, one: _Item) -> Iterator[Told]:
        text = "".join(one.said)
        if one.kind == "function_call":
            yield Told(at, one.kind, f"{_SAID[one.kind]}.done", {**one.at, "name": one.name, "arguments": text})
        else:
            logprobs = {"logprobs": one.logprobs} if one.kind == "message" else {}
            yield Told(at, one.kind, f"{_SAID[one.kind]}.done", {**one.at, "text": text, **logprobs})
            yield Told(at, one.kind, f"{_PART[one.kind]}.done", {**one.at, "part": one.part})
        yield Told(at, one.kind, "response.output_item.done", {"item": one.document})

    def _place_of(self, kind: str, call: int | None) -> int | None:
        """Where the item stands that goes on; None where a new one begins."""
        if call is None:
            goes_on = bool(self._items) and self._items[-1].kind == kind
            return len(self._items) - 1 if goes_on else None
        return next((at for at, one in enumerate(self._items) if one.call == call), None)

    def _opened(self, at: int, one: _Item) -> Iterator[Told]:
        yield Told(at, one.kind, "response.output_item.added", {"item": one.document})
        if one.kind in _PART:
            yield Told(at, one.kind, f"{_PART[one.kind]}.added", {**one.at, "part": one.part})
