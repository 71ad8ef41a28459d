"""What becomes of a failover consumer when its partition fails in the background."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, cast

import pulsar
import pytest

from backplane.adapters.pulsar_bus.failover import FailoverConsumer
from backplane.adapters.pulsar_bus.partition import Delivery, Partition, Subscription
from backplane.ports.bus import BusUnavailable, Message, Position

NEVER_S = 3600.0


class ScriptedPartition:
    """Delivers what it is given, then waits; an exception among it is raised."""

    topic, index, connected = "t", 0, True

    def __init__(self, *script: int | Exception) -> None:
        self._script = deque(script)
        self.first_only = False
        self.more = asyncio.Event()
        self._given = 0

    async def receive(self) -> Delivery | None:
        if not self._script:
            await asyncio.Event().wait()
        if self._given and self.first_only:
            await self.more.wait()
        self._given += 1
        step = self._script.popleft()
        if isinstance(step, Exception):
            raise step
        return Message("t", 0, Position(1, step), None, b"%d" % step), pulsar.MessageId(0, 1, step, -1)

    async def acknowledge_up_to(self, id: pulsar.MessageId) -> None:
        raise BusUnavailable("the connection is lost")

    async def close(self) -> None: ...


def consumer_of(partition: ScriptedPartition) -> FailoverConsumer:
    made = FailoverConsumer(
        cast(Subscription, None), [cast(Partition, cast(Any, partition))], NEVER_S, lambda: None, 10
    )
    made.start()
    return made


async def test_whoever_receives_is_told_that_a_partition_is_not_read_any_more() -> None:
    consumer = consumer_of(ScriptedPartition(1, RuntimeError("boom")))
    async with asyncio.timeout(5):
        assert [message.payload for message in await consumer.receive(10)] == [b"1"]
        with pytest.raises(BusUnavailable, match="cannot go on: RuntimeError"):
            await consumer.receive()
    await consumer.close()


async def test_an_ack_that_fails_again_does_not_end_the_reading() -> None:
    partition = ScriptedPartition(1, 1, 2)
    partition.first_only = True
    consumer = consumer_of(partition)
    async with asyncio.timeout(5):
        [first] = await consumer.receive()
        with pytest.raises(BusUnavailable, match="connection is lost"):
            await consumer.ack(first)
        # The broker knows nothing of that ack and delivers again; what was done is acked once more, in vain.
        partition.more.set()
        assert [message.payload for message in await consumer.receive()] == [b"2"]
    await consumer.close()
