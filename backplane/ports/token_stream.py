"""A generation's frames on their way to whoever follows it.

The stream is a fast copy: every fact in it is also in an event, so losing it loses speed and nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import Enum
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from event_schemas.chat import Piece


class StreamUnavailable(Exception):
    """The token stream cannot be reached. Followers go on from Postgres, workers go on without it."""


class Cursor(NamedTuple):
    """Where a follower stands: the attempt it saw, and the last seq of it. Written ``<attempt>-<seq>`` on the wire."""

    attempt: int
    seq: int

    def __str__(self) -> str:
        return f"{self.attempt}-{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Raises ValueError where ``text`` is not ``<attempt>-<seq>``."""
        attempt, dash, seq = text.partition("-")
        if not (dash and attempt.isdecimal() and seq.isdecimal() and len(text) <= 40):
            raise ValueError(f"{text[:40]!r} is not a cursor like '1-42'")
        return cls(int(attempt), int(seq))


class Kind(Enum):
    STARTED = "started"
    TOKEN = "token"  # noqa: S105 - a piece of text, not a credential
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self in (Kind.COMPLETED, Kind.FAILED, Kind.CANCELLED)


_NOTHING: Mapping[str, Any] = {}


class Frame(NamedTuple):
    """One entry of a stream.

    A token frame holds ``deltas`` with the seqs ``seq - len(deltas) + 1 … seq``; ``seq`` of a started frame is 0, that
    of a terminal frame is the attempt's last. ``detail`` is what the client is shown beside it (model, usage, reason).
    """

    kind: Kind
    attempt: int
    seq: int
    deltas: Sequence[Piece] = ()
    detail: Mapping[str, Any] = _NOTHING

    def after(self, cursor: Cursor) -> Frame | None:
        """This frame without what ``cursor`` has seen; None if nothing is left. Terminal frames are always left."""
        if self.kind.terminal:
            return self
        if self.attempt < cursor.attempt:
            return None
        if self.attempt > cursor.attempt:
            return self
        if self.kind is Kind.STARTED or self.seq <= cursor.seq:
            return None
        fresh = self.seq - cursor.seq
        if fresh >= len(self.deltas):
            return self
        return Frame(self.kind, self.attempt, self.seq, self.deltas[-fresh:], self.detail)


class StreamWriter(Protocol):
    """The worker's side. Never blocks generation: what cannot be written is dropped, and followers use Postgres."""

    def append(self, tenant_id: UUID, generation_id: UUID, frame: Frame) -> None:
        """Hand over a frame. All frames of one event loop tick go out in one round trip."""

    async def flush(self) -> None:
        """Return once all that was handed over is written or dropped."""

    async def last(self, tenant_id: UUID, generation_id: UUID) -> Cursor | None:
        """The newest token that stands in the stream, None where there is none. Raises StreamUnavailable."""


class StreamReader(Protocol):
    async def backlog(self, tenant_id: UUID, generation_id: UUID) -> list[Frame]:
        """All frames kept of this generation, oldest first. Raises StreamUnavailable."""

    def follow(self, tenant_id: UUID, generation_id: UUID) -> AbstractAsyncContextManager[AsyncIterator[Frame | None]]:
        """Frames as they are written, from the moment the context is entered.

        None is yielded when frames may have been missed (this follower was too slow): read the backlog again. Runs of
        tokens may come joined to one frame. A pending ``anext`` may be cancelled; that loses nothing.
        Raises StreamUnavailable on entry, and from the iterator when the connection is lost.
        """


class StreamEraser(Protocol):
    async def erase(self, tenant_id: UUID, generation_ids: Sequence[UUID]) -> None:
        """Nothing that was written of these generations is kept any more. Raises StreamUnavailable."""


class Signals(Protocol):
    """Wake-ups between processes: hints that make things fast. Nothing depends on one arriving."""

    async def send(self, channel: str, message: str) -> None:
        """Never raises for an unreachable server: the safety net of every signal is polling."""

    def listen(self, channel: str) -> AbstractAsyncContextManager[AsyncIterator[str]]:
        """Messages from the moment of entry, through reconnects. Ends only when the context is left."""
