import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from backplane.ports.bus import BusUnavailable, Message, Mode, Position
from backplane.ports.database import DatabaseUnavailable
from backplane.settings import PoolSettings, Settings
from backplane.telemetry.readiness import Readiness
from event_schemas.codec import AnyEnvelope, encode
from projections import backoff, main
from projections.event_log import MOST_BYTES, Received
from projections.insistence import BLOCK
from projections.main import keep_up
from projections.positions import SetBack
from projections.runner import MOST_MESSAGES, Runner, slices
from tests.unit.projections.deadline import eventually
from tests.unit.projections.doubles import (
    EmptyDatabase,
    FixedWatch,
    MemoryBatch,
    MemoryBus,
    MemoryConsumer,
    MemoryPublisher,
    WatchedReadiness,
)
from tests.unit.projections.story import Story

SETTINGS = Settings(pools={"local": PoolSettings(backend="scripted")})
SECRET = "what only the two of us may know"


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_S", 0.001)
    monkeypatch.setattr(backoff, "LONGEST_S", 0.002)


def messages(*payloads: AnyEnvelope | bytes) -> list[Message]:
    return [
        Message("events", 0, Position(0, entry), None, payload if isinstance(payload, bytes) else encode(payload))
        for entry, payload in enumerate(payloads)
    ]


def newer(envelope: AnyEnvelope) -> bytes:
    return encode(envelope).replace(b'"generation.started.v1"', b'"generation.started.v9"')


class Rig:
    """A runner on doubles, and its parts."""

    def __init__(self, sent: Sequence[Message], batch: MemoryBatch, least: Position | None = None) -> None:
        self.consumer = MemoryConsumer(sent)
        self.publisher = MemoryPublisher()
        self.batch = batch
        self.readiness = WatchedReadiness()
        self.stop = asyncio.Event()
        self.watch = FixedWatch(least)
        parts = (self.consumer, self.publisher, batch, self.watch, self.readiness, self.stop)
        self.runner = Runner(*parts)  # type: ignore[arg-type]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Run until ``condition``, then stop as a SIGTERM would."""
        async with asyncio.timeout(10):
            running = asyncio.create_task(self.runner.run())
            await eventually(condition)
            self.stop.set()
            await running


async def test_what_is_applied_is_acked() -> None:
    sent = messages(*Story().whole())
    rig = Rig(sent, MemoryBatch())
    await rig.until(lambda: rig.consumer.acked == sent)
    assert [each.raw for each in rig.batch.applied] == [message.payload for message in sent]
    assert await rig.readiness.reasons() == {}


async def test_what_follows_a_gap_is_neither_applied_nor_acked() -> None:
    sent = messages(*Story().whole())
    rig = Rig(sent, MemoryBatch(), least=Position(0, 9))
    with pytest.raises(SetBack):
        async with asyncio.timeout(10):
            await rig.runner.run()
    assert (rig.batch.applied, rig.consumer.acked, rig.watch.committed) == ([], [], [])


async def test_poison_is_set_aside_once_with_its_reason_and_nothing_blocks_behind_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second, *_ = Story().whole()
    poison = json.dumps({"type": "generation.started.v1", "data": {"worker": SECRET}}).encode()
    sent = messages(first, poison, second, b"\xff")
    failures = iter([DatabaseUnavailable("Postgres is unavailable: ConnectionError")])
    rig = Rig(sent, MemoryBatch(lambda _: next(failures, None)))
    await rig.until(lambda: rig.consumer.acked == sent)
    assert [payload for payload, _ in rig.publisher.published["events-dlq"]] == [poison, b"\xff"]
    reason = rig.publisher.published["events-dlq"][0][1]["dead_letter_reason"]
    assert reason.startswith("generation.started.v1: ")
    assert SECRET not in reason
    assert SECRET not in caplog.text
    assert [each.envelope.id for each in rig.batch.applied] == [first.id, second.id]
    assert rig.batch.passed == sent


@pytest.mark.parametrize("topic", ["commands-local", "control"])
async def test_poison_that_workers_read_too_is_theirs_to_set_aside(topic: str) -> None:
    sent = [replace(message, topic=topic) for message in messages(b"\xff", Story().whole()[0])]
    rig = Rig(sent, MemoryBatch())
    await rig.until(lambda: rig.consumer.acked == sent)
    assert rig.publisher.published == {}
    assert len(rig.batch.applied) == 1


async def test_poison_waits_for_the_bus_that_is_to_keep_it() -> None:
    sent = messages(b"{}")
    rig = Rig(sent, MemoryBatch())
    rig.publisher.failures = 3
    await rig.until(lambda: rig.consumer.acked == sent)
    assert len(rig.publisher.published["events-dlq"]) == 1


async def test_a_newer_version_stops_the_reader_and_nothing_of_it_is_acked(caplog: pytest.LogCaptureFixture) -> None:
    prompt, started, *rest = Story().whole()
    sent = messages(prompt, newer(started), *rest)
    rig = Rig(sent, MemoryBatch())
    async with asyncio.timeout(10):
        await rig.runner.run()
    assert rig.consumer.acked == sent[:1]
    assert rig.consumer.unacked == sent[1:]
    assert [each.envelope.id for each in rig.batch.applied] == [prompt.id]
    assert rig.publisher.published == {}
    reason = (await rig.readiness.reasons())[BLOCK]
    assert "generation.started.v9" in reason
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_a_lost_database_is_waited_out_and_visible() -> None:
    sent = messages(*Story().whole())
    back = asyncio.Event()
    down = DatabaseUnavailable("Postgres is unavailable: ConnectionRefusedError")
    rig = Rig(sent, MemoryBatch(lambda _: None if back.is_set() else down))

    def tried() -> bool:
        if rig.batch.tries >= 3 and not back.is_set():
            assert rig.consumer.acked == []
            back.set()
        return rig.consumer.acked == sent

    await rig.until(tried)
    assert set(rig.readiness.said) == {"waiting: Postgres is unavailable: ConnectionRefusedError"}
    assert await rig.readiness.reasons() == {}
    assert len(rig.batch.applied) == len(sent)


async def test_a_bug_is_never_skipped_and_is_named_without_content(caplog: pytest.LogCaptureFixture) -> None:
    facts = Story().whole()
    sent = messages(*facts)
    culprit = facts[2].id

    def fails(received: Sequence[Received]) -> Exception | None:
        return KeyError(SECRET) if any(each.envelope.id == culprit for each in received) else None

    rig = Rig(sent, MemoryBatch(fails))
    caplog.set_level(logging.INFO)
    await rig.until(lambda: rig.batch.tries > 8)
    assert rig.consumer.acked == sent[:2]
    assert rig.consumer.unacked == sent[2:]
    reason = (await rig.readiness.reasons())[BLOCK]
    assert reason == "stuck: KeyError at events, partition 0, position Position(ledger=0, entry=2); see the log"
    assert SECRET not in caplog.text
    assert any(getattr(record, "action", "") == "projection_stuck" for record in caplog.records)


async def test_a_lost_ack_is_repeated() -> None:
    sent = messages(*Story().whole())
    rig = Rig(sent, MemoryBatch())
    rig.consumer.acks_to_lose = 2
    await rig.until(lambda: rig.consumer.acked == sent)
    assert len(rig.batch.applied) == len(sent)


async def test_stopping_while_the_database_is_down_acks_nothing() -> None:
    sent = messages(*Story().whole())
    rig = Rig(sent, MemoryBatch(lambda _: DatabaseUnavailable("Postgres is unavailable: TimeoutError")))
    await rig.until(lambda: rig.batch.tries > 2)
    assert rig.consumer.unacked == sent


def test_slices_keep_to_their_bounds_and_lose_nothing() -> None:
    sizes = [MOST_BYTES // 2, MOST_BYTES // 2, 1, MOST_BYTES * 2, *[1] * (MOST_MESSAGES + 1)]
    sent = [Message("events", 0, Position(0, entry), None, bytes(size)) for entry, size in enumerate(sizes)]
    cut = [list(slice_) for slice_ in slices(sent)]
    assert [message for slice_ in cut for message in slice_] == sent
    assert [len(slice_) for slice_ in cut] == [2, 1, 1, MOST_MESSAGES, 1]
    assert list(slices([])) == []


async def test_the_service_reads_every_topic_and_waits_out_a_lost_bus() -> None:
    sent = messages(*Story().whole())
    consumer = MemoryConsumer(sent)
    bus = MemoryBus(BusUnavailable("the broker does not answer"), consumer)
    readiness, stop = Readiness(), asyncio.Event()
    batch = MemoryBatch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(main, "Batch", lambda *_: batch)
        async with asyncio.timeout(10):
            serving = asyncio.create_task(keep_up(bus, EmptyDatabase(), SETTINGS, stop, readiness))  # type: ignore[arg-type]
            await eventually(lambda: consumer.acked == sent)
            assert await readiness.reasons() == {}
            stop.set()
            await serving
    assert consumer.closed
    topics = ("commands-local", "control", "ingestions", "events")
    assert bus.subscribed[-1] == (topics, "projections", Mode.FAILOVER)


async def test_the_service_leaves_the_subscription_to_a_newer_release_and_stays_unready() -> None:
    _, started, *_ = Story().whole()
    consumer = MemoryConsumer(messages(newer(started)))
    bus = MemoryBus(consumer)
    readiness, stop = Readiness(), asyncio.Event()
    async with asyncio.timeout(10):
        serving = asyncio.create_task(keep_up(bus, EmptyDatabase(), SETTINGS, stop, readiness))  # type: ignore[arg-type]
        await eventually(lambda: consumer.closed)
        assert not serving.done()
        reason = (await readiness.reasons())[BLOCK]
        assert "generation.started.v9" in reason
        stop.set()
        await serving
    assert len(bus.subscribed) == 1


async def test_backing_off_ends_at_once_when_asked_to_stop() -> None:
    stop = asyncio.Event()
    stop.set()
    assert await backoff.Backoff(stop).pause() is False
