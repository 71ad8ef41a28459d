"""From frames as they come (late, twice, out of order, with holes, of any attempt) to what one follower is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from backplane.ports.token_stream import Cursor, Frame, Kind
from event_schemas.chat import Piece

_NOTHING: Mapping[str, Any] = {}

QUEUED, STARTED, TOKEN, RESTARTED = "queued", "started", "token", "restarted"


class Step(NamedTuple):
    """One thing to tell a follower. Who was told it has seen everything up to ``cursor``.

    ``event`` is queued, started, token, restarted, completed, failed or cancelled; ``deltas`` are those of a token.
    """

    event: str
    cursor: Cursor
    deltas: Sequence[Piece] = ()
    detail: Mapping[str, Any] = _NOTHING


class Assembly:
    """Takes frames from any source in any order, and gives each token of one attempt once, in order.

    A later attempt voids what was told of earlier ones. The ending is told last: after the last token that it counts.
    """

    def __init__(self, cursor: Cursor) -> None:
        """``cursor`` is what the follower has seen before."""
        self.cursor = cursor
        self.done = False
        self._early: dict[int, Frame] = {}
        self._ending: Frame | None = None

    @property
    def incomplete(self) -> bool:
        """Whether something is known that cannot be told yet, since tokens before it are missing."""
        return bool(self._early) or (self._ending is not None and not self.done)

    def take(self, frame: Frame) -> list[Step]:
        """What can be told now that this frame is known."""
        if self.done:
            return []
        steps: list[Step] = []
        if frame.kind.terminal:
            # A record may know fewer tokens than were seen (an attempt that was lost), so the newest word counts.
            self._ending = frame
        elif self._ending is not None and frame.attempt != self._ending.attempt:
            return []
        if frame.attempt > self.cursor.attempt:
            steps.append(self._begun(frame))
        if frame.kind is Kind.TOKEN and frame.attempt == self.cursor.attempt:
            if frame.seq - len(frame.deltas) > self.cursor.seq:
                self._keep(frame)
            elif (fresh := frame.after(self.cursor)) is not None and fresh.deltas:
                steps.append(self._told(fresh))
                if self._early:
                    self._fill(steps)
        if self._ending is not None:
            self._end(self._ending, steps)
        return steps

    def give_up(self) -> list[Step]:
        """The ending, where it is known and the tokens before it are nowhere any more."""
        return [] if self._ending is None or self.done else [self._ended(self._ending)]

    def _begun(self, frame: Frame) -> Step:
        event = RESTARTED if self.cursor.attempt else STARTED
        self.cursor = Cursor(frame.attempt, 0)
        self._early.clear()
        model = {"model": frame.detail["model"]} if "model" in frame.detail else {}
        return Step(event, self.cursor, detail={"attempt": frame.attempt, **model})

    def _keep(self, frame: Frame) -> None:
        first = frame.seq - len(frame.deltas)
        known = self._early.get(first)
        if known is None or known.seq < frame.seq:
            self._early[first] = frame

    def _told(self, frame: Frame) -> Step:
        self.cursor = Cursor(frame.attempt, frame.seq)
        return Step(TOKEN, self.cursor, frame.deltas)

    def _fill(self, steps: list[Step]) -> None:
        for first in sorted(self._early):
            if first > self.cursor.seq:
                return
            fresh = self._early.pop(first).after(self.cursor)
            if fresh is not None:
                steps.append(self._told(fresh))

    def _end(self, ending: Frame, steps: list[Step]) -> None:
        if ending.attempt == self.cursor.attempt and ending.seq > self.cursor.seq:
            return
        steps.append(self._ended(ending))

    def _ended(self, ending: Frame) -> Step:
        self.done = True
        self._early.clear()
        return Step(ending.kind.value, Cursor(ending.attempt, ending.seq), detail=ending.detail)
