"""A response as it streams: https://platform.openai.com/docs/api-reference/responses-streaming

What is told is a pure function of the generation's steps, however their deltas are grouped, from whichever process and
whenever they are read; so a client that comes back is told all of it, less what its number says that it has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from gateway.responses.output import Json, Output, Told, item_id, void_item
from gateway.responses.response import IN_PROGRESS, QUEUED, Response, status_of
from gateway.responses.sequence import CLOSED, Place
from query_api.assembly import QUEUED as STILL_QUEUED
from query_api.assembly import TOKEN, Step

_ENDINGS = ("completed", "failed", "cancelled")


class Events:
    """Of one response, for one client that was told everything up to the number ``seen``; None: nothing."""

    def __init__(self, response: Response, seen: int | None = None) -> None:
        self._response = response
        self._after = -1 if seen is None else seen
        self._newest = self._after
        self._has_begun = False
        self._void = 0
        self._at = Place(1, 0, "message", -1)
        self._output = Output(response.generation_id, 1)

    def head(self) -> Iterator[bytes]:
        """Told first, before any step."""
        yield from self._told(0, "response.created", {"response": self._response.document(QUEUED)})
        yield from self._told(1, "response.queued", {"response": self._response.document(QUEUED)})

    def of(self, step: Step) -> Iterator[bytes]:
        """What ``step`` tells; the last one ends the stream."""
        if step.event == TOKEN:
            for piece in step.deltas:
                yield from self._items(self._output.take(piece))
        elif step.event in _ENDINGS:
            yield from self._end(step)
        elif step.event != STILL_QUEUED:
            yield from self._begin(step.cursor.attempt)

    def broken(self, code: str, message: str) -> bytes:
        """The stream ends without its response's end."""
        body = {"type": "error", "code": code, "message": message, "param": None, "sequence_number": self._newest + 1}
        return _event(body)

    def _begin(self, attempt: int) -> Iterator[bytes]:
        if not self._has_begun:
            self._has_begun = True
            yield from self._told(2, "response.in_progress", {"response": self._response.document(IN_PROGRESS)})
        # What the client was told last, by this process or another one, says which items of its are void.
        last = Place.at(max(self._newest, 0))
        if 0 < last.attempt < attempt:
            if last.event != CLOSED:
                yield from self._left(last)
            self._void = last.void + last.item + 1
        else:
            self._void = last.void
        self._at = Place(attempt, 0, "message", -1, self._void)
        self._output = Output(self._response.generation_id, attempt)

    def _left(self, last: Place) -> Iterator[bytes]:
        """What its attempt left is done, and nothing of it counts. To who was not here, that is the newest item."""
        left = self._output.left if self._at.attempt == last.attempt else []
        if not left:
            id = item_id(last.kind, self._response.generation_id, last.attempt, last.item)
            left = [(last.item, void_item(last.kind, id))]
        for event, (at, item) in enumerate(left, CLOSED + 1 - len(left)):
            body = {"output_index": last.void + at, "item": item}
            yield from self._told(last._replace(event=event).number, "response.output_item.done", body)

    def _items(self, told: Iterator[Told]) -> Iterator[bytes]:
        for one in told:
            if one.type == "response.output_item.added":
                self._at = Place(self._at.attempt, one.item, one.kind, -1, self._void)
            yield from self._next(one.type, {"output_index": self._void + one.item, **one.body})

    def _end(self, step: Step) -> Iterator[bytes]:
        status = status_of(step.event, step.detail.get("finish_reason"))
        yield from self._items(self._output.end(status))
        document = self._response.ended(step.event, step.detail, self._output.items)
        # There is no event of its own for what was cancelled: its response says so.
        type = "incomplete" if status == "cancelled" else status
        yield from self._next(f"response.{type}", {"response": document})

    def _next(self, type: str, body: Json) -> Iterator[bytes]:
        self._at = self._at._replace(event=self._at.event + 1)
        yield from self._told(self._at.number, type, body)

    def _told(self, number: int, type: str, body: Json) -> Iterator[bytes]:
        if number > self._after:
            self._newest = max(self._newest, number)
            yield _event({"type": type, "sequence_number": number, **body})


def _event(body: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (body["type"].encode(), orjson.dumps(body))
