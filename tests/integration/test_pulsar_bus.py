"""What only a broker can do to us: restart, move topics, fence a producer, grow partitions, forget nothing."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable

import pulsar
import pulsar.asyncio
import pytest

from backplane.adapters.pulsar_bus import PulsarBus
from backplane.ports.bus import Bus, BusUnavailable, Consumer, Message, Mode, Start, UnknownTopic
from tests.contract.bus.harness import BusSpec, Child, backlog_becomes, collect, eventually, payloads
from tests.pulsar_broker import PulsarBroker

pytestmark = [pytest.mark.pulsar, pytest.mark.timeout(240)]

PATIENCE_S = 120.0
BOTH = pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.value)


@pytest.fixture
def namespace() -> str:
    return f"n{uuid.uuid4().hex}"


BusFactory = Callable[[], Bus]


@pytest.fixture
async def bus_factory(shared_broker: PulsarBroker, namespace: str) -> AsyncIterator[BusFactory]:
    opened: list[PulsarBus] = []

    def open_bus() -> PulsarBus:
        opened.append(PulsarBus(shared_broker.address(namespace=namespace), watch_s=0.2, timeout_s=10.0))
        return opened[-1]

    yield open_bus
    for bus in opened:
        await bus.close()


@pytest.fixture
def bus(bus_factory: BusFactory) -> Bus:
    return bus_factory()


@pytest.fixture
async def topic(bus: Bus) -> str:
    """A topic of four partitions with a subscription ``s``."""
    await bus.create_topics(["t"], partitions=4)
    await bus.ensure_subscription(["t"], "s", Start.EARLIEST)
    return "t"


async def insistently(bus: Bus, topic: str, payload: bytes, partition: int | None = None) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await bus.publish(topic, payload, partition=partition)
            except BusUnavailable:
                continue
            return


async def all_of(consumer: Consumer, wanted: set[bytes]) -> None:
    """Receive and ack until each of these came at least once."""
    missing = set(wanted)
    async with asyncio.timeout(PATIENCE_S):
        while missing:
            batch = await consumer.receive(50)
            await consumer.ack(*batch)
            missing -= set(payloads(batch))


@BOTH
async def test_a_broker_that_is_killed_and_comes_back_has_lost_nothing(
    shared_broker: PulsarBroker, bus: Bus, topic: str, mode: Mode
) -> None:
    consumer = await bus.subscribe([topic], "s", mode, prefetch=10)
    before = {f"before {number}".encode() for number in range(20)}
    await asyncio.gather(*(bus.publish(topic, text) for text in before))
    held = await collect(consumer, 5, limit=5, ack=False)
    waiting = asyncio.create_task(all_of(consumer, {b"while it was away", b"after", *(before - set(payloads(held)))}))
    await asyncio.to_thread(shared_broker.kill)
    away = asyncio.create_task(insistently(bus, topic, b"while it was away"))
    with pytest.raises(BusUnavailable, match=r"127\.0\.0\.1"):
        await bus.ping()
    await asyncio.to_thread(shared_broker.start)
    await away
    await insistently(bus, topic, b"after")
    await waiting
    await consumer.ack(*held)
    await drained(bus, topic, consumer)


async def drained(bus: Bus, topic: str, consumer: Consumer) -> None:
    """What a lost connection delivers a second time is acked; then nothing is left."""

    async def run() -> None:
        while True:
            await consumer.ack(*await consumer.receive(50))

    running = asyncio.create_task(run())
    await backlog_becomes(bus, topic, 0)
    running.cancel()
    await asyncio.wait([running])


@BOTH
async def test_a_topic_that_is_unloaded_goes_on(shared_broker: PulsarBroker, bus: Bus, topic: str, mode: Mode) -> None:
    consumer = await bus.subscribe([topic], "s", mode, prefetch=10)
    namespace = bus_namespace(bus)
    wanted: set[bytes] = set()
    seen: set[bytes] = set()
    reading = asyncio.create_task(_forever(consumer, seen))
    for turn in range(4):
        texts = {f"{turn} {number}".encode() for number in range(20)}
        wanted |= texts
        publishing = asyncio.gather(*(insistently(bus, topic, text) for text in texts))
        await asyncio.to_thread(shared_broker.admin, "PUT", f"persistent/{namespace}/{topic}/unload")
        await publishing

    async def all_seen() -> bool:
        return seen == wanted

    await eventually(all_seen)
    await backlog_becomes(bus, topic, 0)
    reading.cancel()
    await asyncio.wait([reading])


async def _forever(consumer: Consumer, seen: set[bytes]) -> None:
    while True:
        batch = await consumer.receive(7)
        seen |= set(payloads(batch))
        await consumer.ack(*batch)


def bus_namespace(bus: Bus) -> str:
    assert isinstance(bus, PulsarBus)
    return f"{bus.address.tenant}/{bus.address.namespace}"


async def test_what_was_handed_out_in_order_is_not_handed_out_again_when_its_topic_moves(
    shared_broker: PulsarBroker, bus: Bus, topic: str
) -> None:
    consumer = await bus.subscribe([topic], "s", Mode.FAILOVER, prefetch=10)
    for number in range(4):
        await bus.publish(topic, str(number).encode(), partition=1)
    held = await collect(consumer, 4, ack=False)
    await consumer.ack(held[0])
    await asyncio.to_thread(shared_broker.admin, "PUT", f"persistent/{bus_namespace(bus)}/{topic}/unload")
    await insistently(bus, topic, b"next", partition=1)
    assert payloads(await collect(consumer, 1, ack=False)) == [b"next"]
    await consumer.ack(*held[1:])
    await backlog_becomes(bus, topic, 1)


async def test_a_slow_consumer_holds_up_nobody(bus: Bus, bus_factory: BusFactory, topic: str) -> None:
    slow = await bus.subscribe([topic], "s", Mode.SHARED, prefetch=100)
    fast = await bus_factory().subscribe([topic], "s", Mode.SHARED, prefetch=100)
    texts = {str(number).encode() for number in range(1500)}
    await asyncio.gather(*(bus.publish(topic, text) for text in texts))
    held = await collect(slow, 3, limit=3, ack=False)
    await all_of(fast, texts - set(payloads(held)))
    await backlog_becomes(bus, topic, len(held))
    await slow.ack(*held)
    await backlog_becomes(bus, topic, 0)


async def test_twelve_killed_consumers_of_one_message_leave_it_to_the_thirteenth(
    shared_broker: PulsarBroker, bus: Bus, namespace: str
) -> None:
    await bus.create_topics(["t"], partitions=1)
    await bus.publish("t", b"fatal")
    spec = BusSpec("pulsar", f"{shared_broker.url} {shared_broker.admin_url}", namespace=f"parley/{namespace}")
    task = {"do": "consume", "topic": "t", "subscription": "s", "mode": "shared", "ack": False}
    for _ in range(12):
        doomed = await Child.start(spec, **task)
        assert await doomed.line() == "fatal"
        await doomed.kill()
    survivor = await bus.subscribe(["t"], "s", Mode.SHARED, prefetch=1)
    assert payloads(await collect(survivor, 1)) == [b"fatal"]
    await backlog_becomes(bus, "t", 0)


async def test_a_producer_that_is_fenced_is_made_anew(shared_broker: PulsarBroker, bus: Bus, topic: str) -> None:
    await bus.publish(topic, b"before", partition=0)
    stranger = pulsar.asyncio.Client(shared_broker.url)
    try:
        fencing = await stranger.create_producer(
            f"persistent://{bus_namespace(bus)}/{topic}-partition-0",
            access_mode=pulsar.ProducerAccessMode.ExclusiveWithFencing,
        )
        with pytest.raises(BusUnavailable, match="publish"):
            await bus.publish(topic, b"fenced", partition=0)
        await fencing.close()
        await insistently(bus, topic, b"after", partition=0)
    finally:
        await stranger.close()
    texts = payloads(await bus.read(topic, 0, after=None, limit=10))
    assert texts[0] == b"before"
    assert texts[-1] == b"after"


async def test_more_than_ten_thousand_messages_wait_for_their_acks(
    shared_broker: PulsarBroker, bus: Bus, bus_factory: BusFactory, topic: str
) -> None:
    """Every other one is acked, which makes more gaps than a broker remembers over its own end (10,000)."""
    texts = [str(number).encode() for number in range(21_000)]
    for start in range(0, len(texts), 3000):
        await asyncio.gather(*(bus.publish(topic, text) for text in texts[start : start + 3000]))
    holder = bus_factory()
    consumer = await holder.subscribe([topic], "s", Mode.SHARED, prefetch=1000)
    held: list[Message] = []
    async with asyncio.timeout(PATIENCE_S * 2):
        while len(held) < len(texts):
            held += await consumer.receive(1000)
    assert {message.payload for message in held} == set(texts)
    acked = {message.payload for message in held[::2]}
    await consumer.ack(*held[::2])
    await backlog_becomes(bus, topic, len(texts) - len(acked))
    await asyncio.to_thread(shared_broker.kill)
    await asyncio.to_thread(shared_broker.start)
    await holder.close()
    successor = await bus.subscribe([topic], "s", Mode.SHARED, prefetch=1000)
    await all_of(successor, set(texts) - acked)
    await drained(bus, topic, successor)


@BOTH
async def test_partitions_that_are_added_while_it_runs_are_read_and_written(
    shared_broker: PulsarBroker, bus: Bus, topic: str, mode: Mode
) -> None:
    consumer = await bus.subscribe([topic], "s", mode, prefetch=10)
    await bus.publish(topic, b"four")
    assert payloads(await collect(consumer, 1)) == [b"four"]
    await asyncio.to_thread(shared_broker.admin, "POST", f"persistent/{bus_namespace(bus)}/{topic}/partitions", 6)

    async def grown() -> bool:
        return len(await bus.heads(topic)) == 6

    await eventually(grown)
    await insistently_there(bus, topic, partition=5)
    [message] = await collect(consumer, 1)
    assert (message.partition, message.payload) == (5, b"there")
    await backlog_becomes(bus, topic, [0] * 6)


async def insistently_there(bus: Bus, topic: str, partition: int) -> None:
    """Publish to a partition once this process has heard of it."""

    async def known() -> bool:
        try:
            await bus.publish(topic, b"there", partition=partition)
        except ValueError:
            return False
        return True

    await eventually(known)


@BOTH
async def test_a_topic_that_is_deleted_under_us_is_named(
    shared_broker: PulsarBroker, bus: Bus, topic: str, mode: Mode
) -> None:
    consumer = await bus.subscribe([topic], "s", mode, prefetch=10)
    await bus.publish(topic, b"x")
    await collect(consumer, 1)
    waiting = asyncio.create_task(consumer.receive())
    path = f"persistent/{bus_namespace(bus)}/{topic}/partitions?force=true"
    await asyncio.to_thread(shared_broker.admin, "DELETE", path)
    with pytest.raises(UnknownTopic, match=r"'t' in parley/.*parley pulsar setup"):
        async with asyncio.timeout(PATIENCE_S):
            await waiting
    with pytest.raises(UnknownTopic, match="parley pulsar setup"):
        await bus.publish(topic, b"y")
