"""The deltas of one attempt: all of them for the answer, the newest ones for the next TokensEmitted."""

from __future__ import annotations

import orjson

from backplane.ports.bus import MAX_MESSAGE_BYTES
from event_schemas.chat import AnswerContent, Misfit, Piece
from event_schemas.sources import Source
from workers.inference.port import Delta, Reasoning, ToolCallDelta

_MOST_BYTES = (MAX_MESSAGE_BYTES - 1024 * 1024) * 3 // 4
"""Of text with its logprobs, as JSON: the event that ends an answer has all of it, sealed, which is a third more as
base64, and has to go over the bus."""


class Deltas:
    """Seqs count from 1. Nothing here is awaited, so one loop tick sees it whole.

    ``full``: no more text with logprobs goes into the event that will end the answer. ``sources`` and ``source_notes``
    go into it with them; ``scratchpad`` is what was cut out, ``json_span`` where the JSON stands that was asked for,
    ``misfit`` why there is none, ``stopped_by`` the place of the stop sequence that ended it.
    """

    def __init__(self) -> None:
        self._all: list[Piece] = []
        self._calls: dict[int, int] = {}
        self._emitted = 0
        self._bytes = 0
        self.full = False
        self.sources: tuple[Source, ...] = ()
        self.source_notes: tuple[str, ...] = ()
        self.scratchpad = ""
        self.json_span: tuple[int, int] | None = None
        self.stopped_by: int | None = None
        self.misfit: Misfit | None = None

    def append(self, delta: Delta | Reasoning | ToolCallDelta) -> tuple[int, Piece]:
        """Take a delta as the engine gave it. Returns its seq, and the piece of the answer that it is.

        Raises ValueError for a tool call that begins without a name.
        """
        piece: Piece
        if type(delta) is Delta:
            piece = _storable(delta.text)
            if delta.logprobs:
                piece = {"text": piece, "logprobs": [*delta.logprobs]}
                self._bytes += len(orjson.dumps(piece))
                self.full = self._bytes > _MOST_BYTES
        elif isinstance(delta, Reasoning):
            piece = {"reasoning": _storable(delta.text)}
        else:
            assert isinstance(delta, ToolCallDelta)
            piece = self._tool_call(delta)
        self._all.append(piece)
        return len(self._all), piece

    def _tool_call(self, delta: ToolCallDelta) -> Piece:
        number = self._calls.get(delta.number)
        if number is not None:
            return {"tool_call": number, "arguments": _storable(delta.arguments)}
        if not delta.name:
            raise ValueError("a tool call begins without a name")
        number = self._calls[delta.number] = len(self._calls)
        return {
            "tool_call": number,
            "id": _storable(delta.id or f"call_{number}"),
            "name": _storable(delta.name),
            "arguments": _storable(delta.arguments),
        }

    def take(self) -> tuple[int, tuple[Piece, ...]] | None:
        """What was not taken yet, as (first seq, deltas); None where there is nothing."""
        if self._emitted == len(self._all):
            return None
        first = self._emitted + 1
        fresh = tuple(self._all[self._emitted :])
        self._emitted = len(self._all)
        return first, fresh

    @property
    def count(self) -> int:
        return len(self._all)

    @property
    def is_empty(self) -> bool:
        """Nothing was said, and nothing cut out."""
        return not self._all and not self.scratchpad

    @property
    def answer(self) -> AnswerContent:
        """The answer as far as it came."""
        beside = {
            "sources": self.sources,
            "source_notes": self.source_notes,
            "scratchpad": self.scratchpad,
            "json_span": self.json_span,
            "misfit": self.misfit,
            "stopped_by": self.stopped_by,
        }
        return AnswerContent.of(self._all).model_copy(update=beside)


def _storable(text: str) -> str:
    """Postgres cannot store U+0000, which a model may well write; it becomes U+FFFD."""
    return text.replace("\0", "\ufffd")
