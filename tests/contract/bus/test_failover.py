import asyncio
import time
from collections import defaultdict

from backplane.ports.bus import Bus, Consumer, Message, Mode
from tests.contract.bus.conftest import PARTITIONS, BusFactory, Children
from tests.contract.bus.harness import NEVER_S, backlog_becomes, collect, eventually, nothing_comes, payloads


async def publish_everywhere(bus: Bus, topic: str, count: int, first: int = 0) -> None:
    """``count`` messages to each partition, numbered from ``first``."""
    for partition in range(PARTITIONS):
        texts = [str(first + number).encode() for number in range(count)]
        await asyncio.gather(*(bus.publish(topic, text, partition=partition) for text in texts))


def by_partition(messages: list[Message]) -> dict[int, list[int]]:
    numbers: defaultdict[int, list[int]] = defaultdict(list)
    for message in messages:
        numbers[message.partition].append(int(message.payload))
    return dict(numbers)


def in_each(numbers: list[int]) -> dict[int, list[int]]:
    return {partition: list(numbers) for partition in range(PARTITIONS)}


async def test_a_partition_is_delivered_in_order(bus: Bus, topic: str) -> None:
    consumer = await bus.subscribe([topic], "s", Mode.FAILOVER, prefetch=7)
    await publish_everywhere(bus, topic, 50)
    got = await collect(consumer, 50 * PARTITIONS, limit=5)
    assert by_partition(got) == in_each(list(range(50)))
    await backlog_becomes(bus, topic, [0] * PARTITIONS)


async def test_a_partition_has_one_reader(bus: Bus, bus_factory: BusFactory, topic: str) -> None:
    consumers = [await bus_factory().subscribe([topic], "s", Mode.FAILOVER, prefetch=10) for _ in range(2)]
    await spread(bus, topic, consumers)
    received: list[list[Message]] = [[], []]

    async def run(index: int) -> None:
        while True:
            batch = await consumers[index].receive(5)
            received[index] += batch
            await consumers[index].ack(*batch)

    tasks = [asyncio.create_task(run(index)) for index in range(2)]
    await publish_everywhere(bus, topic, 30)

    async def all_acknowledged() -> bool:
        return sum(await bus.backlog(topic, "s")) == 0

    await eventually(all_acknowledged)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    one, two = (by_partition(messages) for messages in received)
    assert len(one) == len(two) == 2
    assert {**one, **two} == in_each(list(range(30)))


async def spread(bus: Bus, topic: str, consumers: list[Consumer]) -> None:
    """Return once each of the consumers is given messages of its own partitions and all partitions have a reader."""
    readers: list[set[int]] = [set() for _ in consumers]

    async def run(index: int) -> None:
        while True:
            batch = await consumers[index].receive(10)
            for message in batch:
                for each in readers:
                    each.discard(message.partition)
                readers[index].add(message.partition)
            await consumers[index].ack(*batch)

    tasks = [asyncio.create_task(run(index)) for index in range(len(consumers))]

    async def is_spread() -> bool:
        for partition in range(PARTITIONS):
            await bus.publish(topic, b"probe", partition=partition)
        return sorted(map(len, readers)) == [PARTITIONS // len(consumers)] * len(consumers)

    async def all_acknowledged() -> bool:
        return sum(await bus.backlog(topic, "s")) == 0

    await eventually(is_spread)
    await eventually(all_acknowledged)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_partitions_are_spread_anew_when_a_consumer_joins_and_nothing_is_delivered_twice(
    bus: Bus, bus_factory: BusFactory, topic: str
) -> None:
    first = await bus_factory(lease_s=NEVER_S).subscribe([topic], "s", Mode.FAILOVER, prefetch=10)
    await publish_everywhere(bus, topic, 3)
    held = await collect(first, 3 * PARTITIONS, ack=False)
    second = await bus_factory(lease_s=NEVER_S).subscribe([topic], "s", Mode.FAILOVER, prefetch=10)
    await publish_everywhere(bus, topic, 1, first=3)
    waiting = asyncio.create_task(collect(second, 2))
    await asyncio.sleep(0.1)
    assert not waiting.done(), "the second reads what the first has not finished"
    await first.ack(*held)
    got = await waiting
    rest = await collect(first, 2)
    assert sorted([*by_partition(got), *by_partition(rest)]) == list(range(PARTITIONS))
    assert {*payloads(got), *payloads(rest)} == {b"3"}


async def test_another_takes_over_in_order_from_the_first_unacknowledged(
    bus: Bus, topic: str, children: Children
) -> None:
    child = await children.start(do="consume", topic=topic, subscription="s", mode="failover", ack=True)
    await publish_everywhere(bus, topic, 5)
    await child.lines(5 * PARTITIONS)

    async def all_acknowledged() -> bool:
        return sum(await bus.backlog(topic, "s")) == 0

    await eventually(all_acknowledged)
    await child.kill()
    holder = await children.start(do="consume", topic=topic, subscription="s", mode="failover", ack=False)
    await publish_everywhere(bus, topic, 5, first=5)
    await holder.lines(5 * PARTITIONS)
    await holder.kill()
    survivor = await bus.subscribe([topic], "s", Mode.FAILOVER, prefetch=10)
    got = await collect(survivor, 5 * PARTITIONS)
    assert by_partition(got) == in_each([5, 6, 7, 8, 9])


async def test_closing_hands_over_at_once(bus_factory: BusFactory, narrow: str) -> None:
    bus = bus_factory(lease_s=NEVER_S)
    leaving = await bus.subscribe([narrow], "s", Mode.FAILOVER, prefetch=10)
    for number in range(6):
        await bus.publish(narrow, str(number).encode())
    got = await collect(leaving, 4, limit=4, ack=False)
    staying = await bus.subscribe([narrow], "s", Mode.FAILOVER, prefetch=10)
    await leaving.ack(got[0], got[2], got[3])
    waiting = asyncio.create_task(collect(staying, 5))
    await leaving.close()
    assert payloads(await waiting) == [b"1", b"2", b"3", b"4", b"5"]


async def test_a_standby_gets_nothing(bus: Bus, bus_factory: BusFactory, narrow: str) -> None:
    active = await bus.subscribe([narrow], "s", Mode.FAILOVER, prefetch=10)
    await bus.publish(narrow, b"x")
    await collect(active, 1)
    standby = await bus_factory().subscribe([narrow], "s", Mode.FAILOVER, prefetch=10)
    await bus.publish(narrow, b"y")
    await nothing_comes(standby)
    assert payloads(await collect(active, 1)) == [b"y"]


async def test_a_nack_comes_back_to_the_same_reader_after_the_delay(bus: Bus, narrow: str) -> None:
    consumer = await bus.subscribe([narrow], "s", Mode.FAILOVER, prefetch=10)
    for text in (b"1", b"2"):
        await bus.publish(narrow, text)
    one, two = await collect(consumer, 2, ack=False)
    began = time.monotonic()
    await consumer.nack(one, delay=0.4)
    await consumer.ack(two)
    await backlog_becomes(bus, narrow, [2])
    assert payloads(await collect(consumer, 1)) == [b"1"]
    assert 0.4 <= time.monotonic() - began < 10
    await backlog_becomes(bus, narrow, [0])


async def test_a_nacked_message_can_be_nacked_again(bus: Bus, narrow: str) -> None:
    consumer = await bus.subscribe([narrow], "s", Mode.FAILOVER, prefetch=10)
    await bus.publish(narrow, b"x")
    for _ in range(3):
        [message] = await collect(consumer, 1, ack=False)
        await consumer.nack(message)
    assert payloads(await collect(consumer, 1)) == [b"x"]
    await backlog_becomes(bus, narrow, [0])


async def test_a_backlog_of_large_messages_is_read_in_order(bus: Bus, narrow: str) -> None:
    for number in range(12):
        await bus.publish(narrow, bytes([number]) * 3_000_000)
    consumer = await bus.subscribe([narrow], "s", Mode.FAILOVER, prefetch=500)
    got = await collect(consumer, 12, limit=500)
    assert [message.payload[0] for message in got] == list(range(12))
