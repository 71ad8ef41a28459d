from backplane.ports.bus import Bus, Mode
from tests.contract.bus.conftest import PARTITIONS
from tests.contract.bus.harness import collect, payloads


async def test_reading_from_the_earliest_and_from_a_position(bus: Bus, topic: str) -> None:
    positions = [await bus.publish(topic, str(number).encode(), partition=3) for number in range(10)]
    first = await bus.read(topic, 3, after=None, limit=4)
    assert payloads(first) == [b"0", b"1", b"2", b"3"]
    rest = await bus.read(topic, 3, after=first[-1].position, limit=100)
    assert payloads(rest) == [b"4", b"5", b"6", b"7", b"8", b"9"]
    assert [message.position for message in [*first, *rest]] == positions
    assert await bus.read(topic, 3, after=positions[-1], limit=100) == []
    assert await bus.read(topic, 0, after=None, limit=100) == []


async def test_heads_are_none_until_something_is_published(bus: Bus, topic: str) -> None:
    assert list(await bus.heads(topic)) == [None] * PARTITIONS
    position = await bus.publish(topic, b"x", partition=1)
    assert list(await bus.heads(topic)) == [None, position, None, None]


async def test_reading_affects_no_subscription(bus: Bus, topic: str) -> None:
    await bus.publish(topic, b"x", partition=0)
    consumer = await bus.subscribe([topic], "s", Mode.FAILOVER, prefetch=10)
    await bus.read(topic, 0, after=None, limit=10)
    assert payloads(await collect(consumer, 1)) == [b"x"]


async def test_what_was_acknowledged_can_be_replayed(bus: Bus, topic: str) -> None:
    texts = [str(number).encode() for number in range(20)]
    for text in texts:
        await bus.publish(topic, text, key="one")
    consumer = await bus.subscribe([topic], "s", Mode.FAILOVER, prefetch=10)
    [partition] = {message.partition for message in await collect(consumer, 20)}
    assert payloads(await bus.read(topic, partition, after=None, limit=100)) == texts
