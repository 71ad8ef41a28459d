import asyncio
import time

from backplane.ports.bus import Bus, Mode
from tests.contract.bus.conftest import BusFactory, Children
from tests.contract.bus.harness import (
    DEADLINE_S,
    LEASE_S,
    NEVER_S,
    backlog_becomes,
    collect,
    eventually,
    nothing_comes,
    payloads,
)


async def test_each_message_goes_to_exactly_one_live_consumer(bus: Bus, bus_factory: BusFactory, topic: str) -> None:
    consumers = [await bus_factory().subscribe([topic], "s", Mode.SHARED, prefetch=10) for _ in range(3)]
    received: list[list[bytes]] = [[] for _ in consumers]

    async def run(index: int) -> None:
        while True:
            batch = await consumers[index].receive(5)
            received[index] += payloads(batch)
            await consumers[index].ack(*batch)

    tasks = [asyncio.create_task(run(index)) for index in range(3)]
    texts = [str(number).encode() for number in range(300)]
    for start in range(0, 300, 20):
        await asyncio.gather(*(bus.publish(topic, text) for text in texts[start : start + 20]))

    async def all_acknowledged() -> bool:
        return sum(await bus.backlog(topic, "s")) == 0

    await eventually(all_acknowledged)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert sorted(text for texts in received for text in texts) == sorted(texts)
    assert all(received), "one of the consumers got nothing"


async def test_an_idle_consumer_gets_what_a_busy_one_did_not_ask_for(
    bus: Bus, bus_factory: BusFactory, narrow: str
) -> None:
    busy, idle = [await bus_factory().subscribe([narrow], "s", Mode.SHARED, prefetch=50) for _ in range(2)]
    for number in range(4):
        await bus.publish(narrow, str(number).encode())
    held = await collect(busy, 1, limit=1, ack=False)
    rest = await collect(idle, 3, ack=False)
    assert {*payloads(held), *payloads(rest)} == {b"0", b"1", b"2", b"3"}


async def test_the_limit_is_kept(bus: Bus, topic: str) -> None:
    consumer = await bus.subscribe([topic], "s", Mode.SHARED, prefetch=100)
    await asyncio.gather(*(bus.publish(topic, b"x") for _ in range(20)))
    for limit in (1, 3, 7):
        assert 1 <= len(await consumer.receive(limit)) <= limit
    await backlog_becomes(bus, topic, 20)


async def test_a_nack_comes_back_after_the_delay_and_not_before(bus: Bus, topic: str) -> None:
    consumer = await bus.subscribe([topic], "s", Mode.SHARED, prefetch=10)
    await bus.publish(topic, b"later")
    [message] = await collect(consumer, 1, ack=False)
    began = time.monotonic()
    await consumer.nack(message, delay=0.4)
    await bus.publish(topic, b"meanwhile")
    assert payloads(await collect(consumer, 2)) == [b"meanwhile", b"later"]
    assert 0.4 <= time.monotonic() - began < 10


async def test_a_nack_is_delivered_to_others_too(bus: Bus, bus_factory: BusFactory, topic: str) -> None:
    one = await bus.subscribe([topic], "s", Mode.SHARED, prefetch=10)
    await bus.publish(topic, b"x")
    [message] = await collect(one, 1, ack=False)
    two = await bus_factory().subscribe([topic], "s", Mode.SHARED, prefetch=10)
    waiting = asyncio.create_task(collect(two, 1))
    await one.nack(message)
    assert payloads(await waiting) == [b"x"]
    await one.ack(message)  # no longer its own: dropped
    await backlog_becomes(bus, topic, 0)


async def test_an_ack_after_a_nack_is_dropped(bus: Bus, topic: str) -> None:
    consumer = await bus.subscribe([topic], "s", Mode.SHARED, prefetch=10)
    await bus.publish(topic, b"x")
    [message] = await collect(consumer, 1, ack=False)
    await consumer.nack(message, delay=0.05)
    await consumer.ack(message)
    assert payloads(await collect(consumer, 1)) == [b"x"]


async def test_closing_frees_at_once(bus_factory: BusFactory, topic: str) -> None:
    bus = bus_factory(lease_s=NEVER_S)
    leaving = await bus.subscribe([topic], "s", Mode.SHARED, prefetch=10)
    await asyncio.gather(*(bus.publish(topic, b"x") for _ in range(5)))
    await collect(leaving, 5, ack=False)
    staying = await bus.subscribe([topic], "s", Mode.SHARED, prefetch=10)
    waiting = asyncio.create_task(collect(staying, 5))
    await leaving.close()
    assert len(await waiting) == 5


async def test_what_a_killed_process_held_goes_to_others(bus: Bus, topic: str, children: Children) -> None:
    child = await children.start(do="consume", topic=topic, subscription="s", mode="shared", ack=False)
    texts = [str(number) for number in range(5)]
    for text in texts:
        await bus.publish(topic, text.encode())
    assert sorted(await child.lines(5)) == texts
    await child.kill()
    survivor = await bus.subscribe([topic], "s", Mode.SHARED, prefetch=10)
    assert sorted(payloads(await collect(survivor, 5))) == [text.encode() for text in texts]


async def test_what_a_live_consumer_works_on_stays_its_own(bus: Bus, bus_factory: BusFactory, topic: str) -> None:
    slow = await bus.subscribe([topic], "s", Mode.SHARED, prefetch=10)
    await bus.publish(topic, b"x")
    [message] = await collect(slow, 1, ack=False)
    other = await bus_factory().subscribe([topic], "s", Mode.SHARED, prefetch=10)
    await nothing_comes(other, 2 * LEASE_S)
    await slow.ack(message)
    await backlog_becomes(bus, topic, 0)


async def test_a_full_partition_does_not_hide_a_light_one(bus: Bus, topic: str) -> None:
    await asyncio.gather(*(bus.publish(topic, b"flood", partition=0) for _ in range(200)))
    await bus.publish(topic, b"light", partition=1)
    consumer = await bus.subscribe([topic], "s", Mode.SHARED, prefetch=1)
    # One of two partitions by lot each time: 40 misses in a row have a chance of 10^-12.
    assert b"light" in payloads(await collect(consumer, 40, limit=1))


async def test_what_comes_back_and_what_is_new_do_not_starve_each_other(bus: Bus, narrow: str) -> None:
    consumer = await bus.subscribe([narrow], "s", Mode.SHARED, prefetch=1)
    await bus.publish(narrow, b"first")
    [message] = await collect(consumer, 1, limit=1, ack=False)
    await asyncio.gather(*(bus.publish(narrow, b"new") for _ in range(60)))
    await consumer.nack(message)
    seen: list[bytes] = []
    async with asyncio.timeout(DEADLINE_S):
        while b"first" not in seen:
            # There is always something new, too.
            await asyncio.gather(*(bus.publish(narrow, b"new") for _ in range(2)))
            seen += payloads(await collect(consumer, 1, limit=1))
        while b"new" not in seen:
            seen += payloads(await collect(consumer, 1, limit=1))
