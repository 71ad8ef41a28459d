"""What is read again after Postgres was set back, and what is said of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from backplane.ports.bus import Message, Position
from backplane.ports.database import Row
from backplane.settings import PoolSettings, Settings
from event_schemas.codec import encode
from projections import backoff, main
from projections.continuity import Continuity
from projections.event_log import Received
from projections.insistence import BLOCK
from projections.main import keep_up
from tests.unit.projections.deadline import eventually
from tests.unit.projections.doubles import MemoryBatch, MemoryBus, MemoryConsumer, WatchedReadiness
from tests.unit.projections.story import Story

TOPIC = "events"
FACTS = Story().whole()
SETTINGS = Settings(pools={"local": PoolSettings(backend="scripted")})
SECRET = "what only the two of us may know"


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_S", 0.001)
    monkeypatch.setattr(backoff, "LONGEST_S", 0.002)


def on_postgres(*entries: int) -> list[Message]:
    return [Message(TOPIC, 0, Position(0, entry), None, encode(FACTS[entry - 1])) for entry in entries]


def on_pulsar(*places: tuple[int, int]) -> list[Message]:
    return [Message(TOPIC, 0, Position(*place), None, encode(fact)) for place, fact in zip(places, FACTS, strict=False)]


class KeptBus(MemoryBus):
    """One partition, of which ``kept`` is left; all that there was up to ``done`` is acknowledged."""

    def __init__(self, kept: Sequence[Message], done: Position, *consumers: MemoryConsumer) -> None:
        super().__init__(*consumers)
        self._kept = kept
        self._done = done

    async def read(self, topic: str, partition: int, *, after: Position | None, limit: int) -> Sequence[Message]:
        return [message for message in self._kept if after is None or message.position > after][:limit]

    async def heads(self, topic: str) -> Sequence[Position | None]:
        return [self._done]

    async def acknowledged(self, topic: str, subscription: str) -> Sequence[Position | None]:
        return [self._done]


class EventsOnly(KeptBus):
    """Of several topics; the others were never used."""

    async def acknowledged(self, topic: str, subscription: str) -> Sequence[Position | None]:
        return [self._done if topic == TOPIC else None]


class OnePosition:
    """A database that knows how far the projections came on the one partition, and remembers where it was moved to."""

    def __init__(self, at: Position | None) -> None:
        self.at = at

    @asynccontextmanager
    async def system(self) -> AsyncIterator[OnePosition]:
        yield self

    async def all(self, sql: str, /, **parameters: Any) -> list[Row]:
        if "INSERT" in sql:
            self.at = Position(parameters["ledgers"][0], parameters["entries"][0])
            return []
        return [] if self.at is None else [{"topic": TOPIC, "partition": 0, **self.at._asdict()}]


@pytest.mark.parametrize(
    ("at", "kept", "done", "action"),
    [
        pytest.param(Position(0, 1), on_postgres(1, 2, 3), Position(0, 3), "read_again", id="all of it"),
        pytest.param(None, on_postgres(1, 2, 3), Position(0, 3), "read_again", id="all from the beginning"),
        pytest.param(Position(0, 1), on_postgres(3), Position(0, 3), "missing_for_good", id="the oldest is dropped"),
        pytest.param(None, on_postgres(2, 3), Position(0, 3), "missing_for_good", id="the very first is dropped"),
        pytest.param(Position(0, 1), [], Position(0, 3), "missing_for_good", id="all is dropped"),
        pytest.param(
            Position(0, 1), on_postgres(4), Position(0, 3), "missing_for_good", id="only what comes later is kept"
        ),
        pytest.param(None, on_pulsar((7, 0), (7, 1)), Position(7, 1), "read_again", id="Pulsar, from the beginning"),
        pytest.param(
            Position(7, 1), on_pulsar((9, 0), (9, 1)), Position(9, 1), "read_again", id="Pulsar, the next ledger"
        ),
    ],
)
async def test_what_is_read_again_and_what_is_missing_for_good_are_told_apart(
    at: Position | None, kept: Sequence[Message], done: Position, action: str, caplog: pytest.LogCaptureFixture
) -> None:
    batch, database = MemoryBatch(), OnePosition(at)
    parts = (KeptBus(kept, done), database, batch, WatchedReadiness(), asyncio.Event())
    continuity = Continuity(*parts)  # type: ignore[arg-type]
    wanted = [message for message in kept if (at or Position(-1, -1)) < message.position <= done]
    assert await continuity.mend([TOPIC]) == len(wanted)
    assert [each.raw for each in batch.applied] == [message.payload for message in wanted]
    assert database.at == done
    [said] = caplog.records
    assert said.levelno == logging.WARNING
    told = vars(said)
    assert (told["action"], told["events"], told["done"]) == (action, len(wanted), str(done))
    assert (told["topic"], told["partition"], told["at"]) == (TOPIC, 0, str(at or Position(-1, -1)))
    caplog.clear()
    assert await continuity.mend([TOPIC]) == 0
    assert caplog.records == []


async def test_a_bug_that_is_met_while_reading_again_is_named_without_content_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept = on_postgres(1, 2, 3)
    mended = asyncio.Event()
    culprit = FACTS[1].id

    def fails(received: Sequence[Received]) -> Exception | None:
        stuck = not mended.is_set() and any(each.envelope.id == culprit for each in received)
        return KeyError(SECRET) if stuck else None

    batch, consumer = MemoryBatch(fails), MemoryConsumer([])
    bus, readiness, stop = EventsOnly(kept, Position(0, 3), consumer), WatchedReadiness(), asyncio.Event()
    monkeypatch.setattr(main, "Batch", lambda *_: batch)
    caplog.set_level(logging.INFO)
    async with asyncio.timeout(10):
        serving = asyncio.create_task(keep_up(bus, OnePosition(None), SETTINGS, stop, readiness))  # type: ignore[arg-type]
        await eventually(lambda: batch.tries > 8 or serving.done())
        assert not serving.done()
        assert [each.raw for each in batch.applied] == [kept[0].payload]
        assert (await readiness.reasons())[BLOCK] == (
            "stuck: KeyError at events, partition 0, position Position(ledger=0, entry=2); see the log"
        )
        mended.set()
        await eventually(lambda: not readiness.blocked)
        assert [each.raw for each in batch.applied] == [message.payload for message in kept]
        stop.set()
        await serving
    assert SECRET not in caplog.text
    assert {"projection_stuck", "read_again"} <= {getattr(record, "action", "") for record in caplog.records}


async def test_stopping_ends_what_is_tried_again_while_reading_again(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, stop = MemoryBatch(lambda _: KeyError(SECRET)), asyncio.Event()
    bus = EventsOnly(on_postgres(1), Position(0, 1))
    monkeypatch.setattr(main, "Batch", lambda *_: batch)
    database, readiness = OnePosition(None), WatchedReadiness()
    async with asyncio.timeout(10):
        serving = asyncio.create_task(keep_up(bus, database, SETTINGS, stop, readiness))  # type: ignore[arg-type]
        await eventually(lambda: batch.tries > 2 or serving.done())
        stop.set()
        await serving
    assert (database.at, bus.subscribed) == (None, [])
