"""A generation as it really went, and what Redis and Postgres know of it, each as bad as a test wants it to be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from backplane.ports.database import DatabaseUnavailable
from backplane.ports.token_stream import Cursor, Frame, Kind, StreamUnavailable
from query_api.assembly import Step
from tests.contract.token_stream.memory import Inbox

TENANT, GENERATION = uuid4(), uuid4()


def delta(attempt: int, seq: int) -> str:
    """Every delta of every attempt is its own text, so that a swapped one is seen."""
    return f"<{attempt}.{seq}>"


def started(attempt: int) -> Frame:
    return Frame(Kind.STARTED, attempt, 0, detail={"model": "m"})


def tokens(attempt: int, first: int, last: int) -> Frame:
    return Frame(Kind.TOKEN, attempt, last, [delta(attempt, seq) for seq in range(first, last + 1)])


@dataclass
class Truth:
    """What the worker did so far."""

    attempt: int = 0
    seq: int = 0
    ended: Frame | None = None

    def start(self) -> Frame:
        self.attempt, self.seq = self.attempt + 1, 0
        return started(self.attempt)

    def write(self, count: int) -> Frame:
        self.seq += count
        return tokens(self.attempt, self.seq - count + 1, self.seq)

    def end(self, kind: Kind) -> Frame:
        self.ended = Frame(kind, self.attempt, self.seq, detail={"model": "m"})
        return self.ended


class FlakyStream:
    """The stream reader's port over a Redis that may lose, repeat and swap anything at any time."""

    def __init__(self) -> None:
        self.kept: list[Frame] = []
        self.inboxes: list[Inbox] = []
        self.down = False
        self.asked = 0

    async def backlog(self, tenant_id: UUID, generation_id: UUID) -> list[Frame]:
        assert (tenant_id, generation_id) == (TENANT, GENERATION)
        self.asked += 1
        if self.down:
            raise StreamUnavailable("down")
        return list(self.kept)

    @asynccontextmanager
    async def follow(self, tenant_id: UUID, generation_id: UUID) -> AsyncIterator[AsyncIterator[Frame | None]]:
        assert (tenant_id, generation_id) == (TENANT, GENERATION)
        if self.down:
            raise StreamUnavailable("down")
        inbox = Inbox(capacity=16)
        self.inboxes.append(inbox)
        try:
            yield inbox
        finally:
            self.inboxes.remove(inbox)

    def keep(self, frame: Frame) -> None:
        self.kept.append(frame)

    def publish(self, frame: Frame | None) -> None:
        for inbox in self.inboxes:
            inbox.put(frame)

    def go_down(self) -> None:
        self.down = True
        for inbox in self.inboxes:
            inbox.break_off()


@dataclass
class LaggingRecord:
    """The record over a Postgres that lags behind the truth and may be away."""

    truth: Truth
    down: bool = False
    seen: Truth = field(default_factory=Truth)
    asked: int = 0
    keeps_tokens: bool = True
    """False: once it has ended, only the ending is stored."""

    def catch_up(self, tokens_behind: int = 0) -> None:
        self.seen = Truth(self.truth.attempt, max(self.truth.seq - tokens_behind, 0), self.truth.ended)
        if self.truth.ended is not None:
            self.seen.seq = self.truth.seq

    async def since(self, cursor: Cursor) -> list[Frame]:
        self.asked += 1
        if self.down:
            raise DatabaseUnavailable("down")
        seen = self.seen
        after = cursor.seq if cursor.attempt == seen.attempt else 0
        frames = [started(seen.attempt)] if seen.attempt else []
        frames += [tokens(seen.attempt, first, min(first + 2, seen.seq)) for first in range(after + 1, seen.seq + 1, 3)]
        if seen.ended is None:
            return frames
        return [*(frames if self.keeps_tokens else frames[:1]), seen.ended]


def check(steps: list[Step], cursor: Cursor | None, truth: Truth) -> None:
    """``steps`` are what a follower who had seen ``cursor`` is told of ``truth``: no token lost, doubled or swapped.

    A follower may come to see only some of the attempts, but those that it sees, it sees from their beginning.
    """
    at = cursor or Cursor(0, 0)
    if cursor is None and steps and steps[0].event == "queued":
        assert steps[0].cursor == (0, 0)
        steps = steps[1:]
    for place, step in enumerate(steps):
        if step.event in ("started", "restarted"):
            assert (step.event == "started") == (at.attempt == 0), steps
            assert step.cursor.attempt > at.attempt
            assert step.cursor.seq == 0
            assert step.detail["attempt"] == step.cursor.attempt
        elif step.event == "token":
            assert step.cursor.attempt == at.attempt
            assert list(step.deltas) == [delta(at.attempt, seq) for seq in range(at.seq + 1, step.cursor.seq + 1)]
            assert step.deltas
        else:
            assert truth.ended is not None
            assert step.event == truth.ended.kind.value
            assert step.cursor == (truth.ended.attempt, truth.ended.seq)
            assert at.attempt > step.cursor.attempt or (
                at.attempt == step.cursor.attempt and at.seq >= step.cursor.seq
            ), "the ending was told before the last token"
            assert place == len(steps) - 1
        at = step.cursor
