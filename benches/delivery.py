"""The bus alone: `python -m benches.delivery`, one process that publishes a message and receives it, one after another.

Beside it, in the same process, what stands behind the bus without the bus: see `benches.bare`.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import uvloop
from pydantic import BaseModel, ConfigDict, Field

from backplane.ports.bus import Consumer, Mode
from backplane.settings import Settings
from backplane.wiring.operations import operator_bus
from benches.bare import bare
from benches.figures import Spread, spread

_SUBSCRIPTION = "bench"
_PREFETCH = 100
_DEADLINE_S = 60.0
_PAYLOAD_BYTES = 1000
_WARM_UP = 0.2

Publish = Callable[[bytes], Awaitable[object]]


class DeliveryOrder(BaseModel):
    model_config = ConfigDict(frozen=True)

    messages: int = Field(ge=1, description="measured in each way, after a fifth more to warm up")


class Delivery(BaseModel):
    """One way from a publisher to a consumer, with one message under way at a time."""

    model_config = ConfigDict(frozen=True)

    publish: Spread = Field(description="until it is durable")
    receive: Spread = Field(description="from before it is published until a consumer has it")


class Deliveries(BaseModel):
    model_config = ConfigDict(frozen=True)

    shared: Delivery
    failover: Delivery
    bare: Delivery = Field(description="without the bus: a row and a NOTIFY, or the broker's own client")
    wrong: list[str] = Field(description="a line for each message that came late, twice, changed or not in order")


class Receipts:
    """When each message was there. Every one is told apart by its payload."""

    def __init__(self, way: str) -> None:
        self.wrong: list[str] = []
        self._way = way
        self._wanted: bytes | None = None
        self._arrived: asyncio.Future[float] | None = None
        self._count = 0

    def expect(self, payload: bytes) -> asyncio.Future[float]:
        """When ``payload`` will have come, in ``time.perf_counter``."""
        self._count += 1
        self._wanted = payload
        self._arrived = asyncio.get_running_loop().create_future()
        return self._arrived

    def take(self, payload: bytes) -> None:
        """A message came."""
        now = time.perf_counter()
        if payload != self._wanted or self._arrived is None or self._arrived.done():
            self.wrong.append(f"{self._way}: message {self._count} was expected, and another came or it came twice")
            return
        self._arrived.set_result(now)


class Way:
    """One way for messages, and how long each of them took."""

    def __init__(self, publish: Publish, receipts: Receipts) -> None:
        self._publish = publish
        self.receipts = receipts
        self._publishing: list[float] = []
        self._receiving: list[float] = []

    async def carry(self, *, counts: bool) -> None:
        """One message, until it has arrived. Raises TimeoutError."""
        payload = os.urandom(_PAYLOAD_BYTES)
        arrival = self.receipts.expect(payload)
        async with asyncio.timeout(_DEADLINE_S):
            began = time.perf_counter()
            await self._publish(payload)
            published = time.perf_counter()
            received = await arrival
        if counts:
            self._publishing.append(published - began)
            self._receiving.append(received - began)

    def delivery(self) -> Delivery:
        """Of all that counted, one at least."""
        publish, receive = spread(self._publishing), spread(self._receiving)
        assert publish is not None
        assert receive is not None
        return Delivery(publish=publish, receive=receive)


async def carry_in_turn(ways: Sequence[Way], messages: int) -> None:
    """``messages`` each way, one here, one there, so that what else the machine does is shared fairly."""
    for number in range(-round(messages * _WARM_UP), messages):
        for way in ways:
            await way.carry(counts=number >= 0)


async def serve(order: DeliveryOrder, settings: Settings) -> Deliveries:
    """Raises what the bus raises, and TimeoutError where a message does not arrive."""
    async with AsyncExitStack() as stack:
        shared = await stack.enter_async_context(_on_bus(settings, Mode.SHARED))
        failover = await stack.enter_async_context(_on_bus(settings, Mode.FAILOVER))
        receipts = Receipts("bare")
        alone = Way(await stack.enter_async_context(bare(settings, receipts.take)), receipts)
        ways = (shared, failover, alone)
        await carry_in_turn(ways, order.messages)
    return Deliveries(
        shared=shared.delivery(),
        failover=failover.delivery(),
        bare=alone.delivery(),
        wrong=[line for way in ways for line in way.receipts.wrong],
    )


@asynccontextmanager
async def _on_bus(settings: Settings, mode: Mode) -> AsyncIterator[Way]:
    topic = f"bench-{mode.value}"
    receipts = Receipts(mode.value)
    # Two of them, as the publisher and the consumer are two processes.
    async with operator_bus(settings) as out, operator_bus(settings) as into:
        await out.create_topics([topic], partitions=settings.bus.partitions)
        consumer = await into.subscribe([topic], _SUBSCRIPTION, mode, prefetch=_PREFETCH)
        receiving = asyncio.create_task(_receive(consumer, receipts))
        try:
            yield Way(lambda payload: out.publish(topic, payload), receipts)
        finally:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
            await consumer.close()


async def _receive(consumer: Consumer, receipts: Receipts) -> None:
    while True:
        messages = await consumer.receive(_PREFETCH)
        for message in messages:
            receipts.take(message.payload)
        await consumer.ack(*messages)


def main() -> None:
    order = DeliveryOrder.model_validate_json(sys.stdin.readline())
    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(runner.run(serve(order, Settings())).model_dump_json(), flush=True)


if __name__ == "__main__":
    main()
