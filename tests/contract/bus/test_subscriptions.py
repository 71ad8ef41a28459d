import asyncio
import contextlib

import pytest

from backplane.ports.bus import Bus, BusError, Mode, Start
from tests.contract.bus.conftest import PARTITIONS, BusFactory
from tests.contract.bus.harness import backlog_becomes, collect, payloads

BOTH = pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.value)


@BOTH
async def test_a_new_subscription_begins_with_the_earliest(bus: Bus, topic: str, mode: Mode) -> None:
    for partition in range(PARTITIONS):
        await bus.publish(topic, b"early", partition=partition)
    consumer = await bus.subscribe([topic], "s", mode, prefetch=10)
    assert payloads(await collect(consumer, PARTITIONS)) == [b"early"] * PARTITIONS


@BOTH
async def test_a_new_subscription_may_begin_with_the_latest(bus: Bus, topic: str, mode: Mode) -> None:
    await bus.publish(topic, b"early", partition=0)
    consumer = await bus.subscribe([topic], "s", mode, prefetch=10, start=Start.LATEST)
    await bus.publish(topic, b"late", partition=0)
    assert payloads(await collect(consumer, 1)) == [b"late"]
    await backlog_becomes(bus, topic, [0] * PARTITIONS)


@BOTH
async def test_a_subscription_made_before_the_first_message_misses_none(bus: Bus, topic: str, mode: Mode) -> None:
    await bus.ensure_subscription([topic], "s", Start.LATEST)
    await bus.publish(topic, b"first", partition=0)
    await bus.ensure_subscription([topic], "s", Start.LATEST)
    consumer = await bus.subscribe([topic], "s", mode, prefetch=10, start=Start.LATEST)
    assert payloads(await collect(consumer, 1)) == [b"first"]


@BOTH
async def test_every_subscription_gets_everything(bus: Bus, topic: str, mode: Mode) -> None:
    one, two = [await bus.subscribe([topic], name, mode, prefetch=10) for name in ("one", "two")]
    await bus.publish(topic, b"x", key="k")
    assert payloads(await collect(one, 1)) == payloads(await collect(two, 1)) == [b"x"]


@BOTH
async def test_one_consumer_of_several_topics(bus: Bus, topic: str, narrow: str, mode: Mode) -> None:
    consumer = await bus.subscribe([topic, narrow], "s", mode, prefetch=10)
    await bus.publish(narrow, b"narrow")
    await bus.publish(topic, b"wide")
    got = await collect(consumer, 2)
    assert {(message.topic, message.payload) for message in got} == {(narrow, b"narrow"), (topic, b"wide")}
    await backlog_becomes(bus, narrow, [0])


@BOTH
async def test_a_waiting_consumer_is_woken(bus: Bus, bus_factory: BusFactory, topic: str, mode: Mode) -> None:
    consumer = await bus_factory().subscribe([topic], "s", mode, prefetch=10)
    waiting = asyncio.create_task(collect(consumer, 1))
    await bus.publish(topic, b"x")
    assert payloads(await waiting) == [b"x"]


@BOTH
async def test_backlog_counts_what_is_not_acknowledged(bus: Bus, topic: str, mode: Mode) -> None:
    for _ in range(6):
        await bus.publish(topic, b"x", partition=2)
    await backlog_becomes(bus, topic, [0, 0, 6, 0])
    consumer = await bus.subscribe([topic], "s", mode, prefetch=10)
    got = await collect(consumer, 6, ack=False)
    await backlog_becomes(bus, topic, [0, 0, 6, 0])
    await consumer.ack(*got[:2])
    await backlog_becomes(bus, topic, [0, 0, 4, 0])
    await consumer.ack(*got)
    await backlog_becomes(bus, topic, [0] * PARTITIONS)


@BOTH
async def test_acknowledging_again_changes_nothing(bus: Bus, topic: str, mode: Mode) -> None:
    consumer = await bus.subscribe([topic], "s", mode, prefetch=10)
    for text in (b"1", b"2"):
        await bus.publish(topic, text, partition=0)
    got = sorted(await collect(consumer, 2, ack=False), key=lambda message: message.position)
    await consumer.ack(got[0])
    await consumer.ack(got[0], got[0])
    await backlog_becomes(bus, topic, [1, 0, 0, 0])
    await consumer.close()
    successor = await bus.subscribe([topic], "s", mode, prefetch=10)
    assert payloads(await collect(successor, 1)) == [b"2"]


@BOTH
async def test_what_comes_for_a_cancelled_receive_is_not_lost(bus: Bus, topic: str, mode: Mode) -> None:
    consumer = await bus.subscribe([topic], "s", mode, prefetch=10)
    for number in range(20):
        pending = asyncio.create_task(consumer.receive())
        await bus.publish(topic, str(number).encode(), partition=0)
        pending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            for message in await pending:
                await consumer.nack(message)
    got = {message.payload for message in await collect(consumer, 20, limit=1)}
    assert got == {str(number).encode() for number in range(20)}


@BOTH
async def test_a_closed_consumer_says_so(bus: Bus, topic: str, mode: Mode) -> None:
    consumer = await bus.subscribe([topic], "s", mode, prefetch=10)
    pending = asyncio.create_task(consumer.receive())
    await asyncio.sleep(0)
    await consumer.close()
    await consumer.close()
    with pytest.raises(BusError, match="closed"):
        await pending
