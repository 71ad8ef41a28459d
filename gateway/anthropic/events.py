"""An answer as Anthropic streams it. Bytes are put together by hand: this runs for every token.

https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from event_schemas.chat import Piece
from gateway.anthropic import answer
from gateway.anthropic.blocks import Blocks, Closed, Mark, Opened, Said

_DELTAS = {
    "text": (b"text_delta", b"text"),
    "thinking": (b"thinking_delta", b"thinking"),
    "tool_use": (b"input_json_delta", b"partial_json"),
}
_RUNNING = {"stop_reason": None, "stop_sequence": None}
_NOTHING_USED = answer.usage({"input_tokens": 0, "output_tokens": 0})


def event(body: Mapping[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (body["type"].encode(), orjson.dumps(body))


PING = event({"type": "ping"})


class Events:
    """Of one message. What it used is known at its end only, so it begins with zeros."""

    def __init__(self, id: str, model: str, stops: Sequence[str] = (), *, shows_thinking: bool) -> None:
        self._id = id
        self.model = model
        self._stops = stops
        self._blocks = Blocks(shows_thinking=shows_thinking)

    def begin(self) -> bytes:
        message = answer.message(self._id, self.model, [], _RUNNING, _NOTHING_USED)
        return event({"type": "message_start", "message": message})

    def tokens(self, deltas: Sequence[Piece]) -> Iterator[bytes]:
        """Those of one block that follow one another in one delta."""
        return _told(mark for piece in deltas for mark in self._blocks.take(piece))

    def finish(self, completed: Mapping[str, Any]) -> Iterator[bytes]:
        yield from _told(self._blocks.end())
        delta, used = answer.stopped(completed, self._stops), answer.usage(completed["usage"])
        yield event({"type": "message_delta", "delta": delta, "usage": used})
        yield event({"type": "message_stop"})


def _told(marks: Iterator[Mark]) -> Iterator[bytes]:
    run: list[Said] = []
    for mark in marks:
        if isinstance(mark, Said) and (not run or run[0].at == mark.at):
            run.append(mark)
            continue
        if run:
            yield _delta(run)
            run = []
        match mark:
            case Said():
                run.append(mark)
            case Opened():
                yield event({"type": "content_block_start", "index": mark.at, "content_block": answer.begun(mark)})
                if mark.at == 0:
                    yield PING
            case Closed():
                yield event({"type": "content_block_stop", "index": mark.at})
    if run:
        yield _delta(run)


def _delta(run: Sequence[Said]) -> bytes:
    kind, field = _DELTAS[run[0].kind]
    said = orjson.dumps("".join([one.text for one in run]))
    return (
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%b","%b":%b}}\n\n'
        % (run[0].at, kind, field, said)
    )
