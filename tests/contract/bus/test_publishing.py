import asyncio
import random

import pytest

from backplane.ports.bus import MAX_MESSAGE_BYTES, Bus, MessageTooLarge, Mode, Position, Start, UnknownTopic
from tests.contract.bus.conftest import PARTITIONS, BusFactory
from tests.contract.bus.harness import backlog_becomes, collect, payloads


async def test_what_is_published_is_there_for_everybody(bus: Bus, bus_factory: BusFactory, topic: str) -> None:
    position = await bus.publish(topic, b"hello", partition=2)
    [message] = await bus_factory().read(topic, 2, after=None, limit=10)
    assert (message.payload, message.partition, message.position) == (b"hello", 2, position)
    assert (message.topic, message.key, message.properties) == (topic, None, {})


@pytest.mark.parametrize("payload", [b"", b"\x00\xff\x00", "ünïcode 😀".encode()], ids=["empty", "binary", "text"])
async def test_a_message_comes_out_as_it_went_in(bus: Bus, topic: str, payload: bytes) -> None:
    properties = {"reason": "ünïcode", "nul": "a\x00b", "empty": ""}
    await bus.publish(topic, payload, key="kéy\x00", partition=0, properties=properties)
    consumer = await bus.subscribe([topic], "s", Mode.SHARED, prefetch=1)
    [message] = await collect(consumer, 1)
    assert (message.payload, message.key, message.properties) == (payload, "kéy\x00", properties)


async def test_positions_of_a_partition_rise(bus: Bus, topic: str) -> None:
    positions = [await bus.publish(topic, b"x", partition=1) for _ in range(5)]
    assert positions == sorted(set(positions))
    assert (await bus.heads(topic))[1] == positions[-1]


async def test_concurrent_publishes_keep_the_order_of_their_calls(bus: Bus, topic: str) -> None:
    texts = [str(number).encode() for number in range(200)]
    positions = await asyncio.gather(*(bus.publish(topic, text, partition=0) for text in texts))
    assert positions == sorted(set(positions))
    assert payloads(await bus.read(topic, 0, after=None, limit=500)) == texts


async def test_a_key_has_one_partition_for_every_publisher(bus: Bus, bus_factory: BusFactory, topic: str) -> None:
    other = bus_factory()
    for key in ("a", "b", "c", "tenant-1"):
        await bus.publish(topic, key.encode(), key=key)
        await other.publish(topic, key.encode(), key=key)
    partitions = [payloads(await bus.read(topic, part, after=None, limit=50)) for part in range(PARTITIONS)]
    for text in (b"a", b"b", b"c", b"tenant-1"):
        assert [part.count(text) for part in partitions if text in part] == [2]


async def test_keys_are_spread(bus: Bus, topic: str) -> None:
    await asyncio.gather(*(bus.publish(topic, b"x", key=f"key-{number}") for number in range(200)))
    assert all(size > 10 for size in await bus.backlog(topic, "nobody"))


async def test_messages_without_a_key_are_spread(bus: Bus, topic: str) -> None:
    await asyncio.gather(*(bus.publish(topic, b"x") for _ in range(10 * PARTITIONS)))
    assert await bus.backlog(topic, "nobody") == [10] * PARTITIONS


async def test_a_message_near_the_limit_passes_and_one_over_it_does_not(bus: Bus, topic: str) -> None:
    largest = random.Random(1).randbytes(MAX_MESSAGE_BYTES)
    await bus.publish(topic, largest, partition=0)
    with pytest.raises(MessageTooLarge, match=str(MAX_MESSAGE_BYTES)):
        await bus.publish(topic, largest + b"x", partition=0)
    consumer = await bus.subscribe([topic], "s", Mode.FAILOVER, prefetch=10)
    assert payloads(await collect(consumer, 1)) == [largest]
    await backlog_becomes(bus, topic, [0] * PARTITIONS)


async def test_a_refused_message_does_not_harm_those_beside_it(bus: Bus, topic: str) -> None:
    outcomes = await asyncio.gather(
        bus.publish(topic, b"before", partition=0),
        bus.publish(topic, bytes(MAX_MESSAGE_BYTES + 1), partition=0),
        bus.publish("no-such-topic", b"x"),
        bus.publish(topic, b"after", partition=0),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [Position, MessageTooLarge, UnknownTopic, Position]
    assert payloads(await bus.read(topic, 0, after=None, limit=10)) == [b"before", b"after"]


async def test_closing_leaves_nothing_of_a_first_publish_that_was_cancelled(
    bus_factory: BusFactory, topic: str
) -> None:
    fresh = bus_factory()  # has to look the topic up first
    before = asyncio.all_tasks()
    impatient = asyncio.create_task(fresh.publish(topic, b"too late"))
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.gather(impatient, return_exceptions=True)
    await fresh.close()
    assert asyncio.all_tasks() - before == set()


async def test_a_caller_that_is_cancelled_takes_nobody_with_it(bus: Bus, topic: str) -> None:
    await bus.publish(topic, b"first", partition=0)
    impatient = asyncio.create_task(bus.publish(topic, b"maybe", partition=0))
    patient = asyncio.create_task(bus.publish(topic, b"surely", partition=0))
    await asyncio.sleep(0)
    impatient.cancel()
    await patient
    assert impatient.cancelled()
    assert payloads(await bus.read(topic, 0, after=None, limit=10))[-1] == b"surely"


async def test_an_unknown_topic_is_named(bus: Bus) -> None:
    for call in (
        lambda: bus.publish("nowhere", b"x"),
        lambda: bus.backlog("nowhere", "s"),
        lambda: bus.heads("nowhere"),
        lambda: bus.read("nowhere", 0, after=None, limit=1),
        lambda: bus.ensure_subscription(["nowhere"], "s", Start.EARLIEST),
        lambda: bus.subscribe(["nowhere"], "s", Mode.SHARED, prefetch=1),
    ):
        with pytest.raises(UnknownTopic, match="nowhere"):
            await call()


async def test_making_topics_again_changes_nothing(bus: Bus, bus_factory: BusFactory, topic: str) -> None:
    await bus.publish(topic, b"kept", partition=0)
    other = bus_factory()
    await asyncio.gather(*(each.create_topics([topic, f"{topic}-new"], partitions=2) for each in (bus, other)))
    assert len(await other.heads(topic)) == PARTITIONS
    assert len(await other.heads(f"{topic}-new")) == 2
    assert payloads(await other.read(topic, 0, after=None, limit=10)) == [b"kept"]


async def test_the_bus_answers(bus: Bus) -> None:
    await bus.ping()
