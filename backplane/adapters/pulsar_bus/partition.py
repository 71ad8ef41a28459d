"""One partition as one consumer reads it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pulsar
from pulsar.asyncio import Consumer, PulsarException

from backplane.adapters.pulsar_bus.broker import Broker
from backplane.adapters.pulsar_bus.errors import translated
from backplane.ports.bus import BusUnavailable, Message, Mode, Position, Start

_TYPES = {Mode.SHARED: pulsar.ConsumerType.Shared, Mode.FAILOVER: pulsar.ConsumerType.Failover}
_STARTS = {Start.EARLIEST: pulsar.InitialPosition.Earliest, Start.LATEST: pulsar.InitialPosition.Latest}

Delivery = tuple[Message, pulsar.MessageId]


class Subscription:
    """What all partitions of one consumer have in common.

    ``queue`` is how many messages the client may hold before they are asked for; 0: each is asked for singly.
    """

    def __init__(self, broker: Broker, name: str, mode: Mode, start: Start, consumer_name: str, queue: int) -> None:
        self.broker = broker
        self.name = name
        self._mode = mode
        self._start = start
        self._consumer_name = consumer_name
        self._queue = queue

    async def join(self, topic: str, index: int) -> Partition:
        """Raises UnknownTopic, BusUnavailable, BusRefused."""
        return Partition(self, topic, index, await self.consumer(topic, index))

    async def consumer(self, topic: str, index: int) -> Consumer:
        try:
            return await self.broker.client.subscribe(
                self.broker.address.topic(topic, index),
                self.name,
                _TYPES[self._mode],
                receiver_queue_size=self._queue,
                consumer_name=self._consumer_name,
                initial_position=_STARTS[self._start],
                # The client rounds up to 100 ms. Longer delays are ours, since they differ from message to message.
                negative_ack_redelivery_delay_ms=1,
            )
        except PulsarException as error:
            raise translated(error, self.broker.address, topic, "subscribe to") from None


class Partition:
    def __init__(self, subscription: Subscription, topic: str, index: int, consumer: Consumer) -> None:
        self._subscription = subscription
        self.topic = topic
        self.index = index
        self._consumer = consumer

    @property
    def connected(self) -> bool:
        connected: bool = self._consumer._consumer.is_connected()
        return connected

    async def receive(self) -> Delivery | None:
        """The next message; None once closed. Not to be cancelled: what arrives after that is held and never seen."""
        while True:
            consumer = self._consumer
            try:
                received = await consumer.receive()
            except PulsarException:
                if consumer is self._consumer:
                    return None
                continue  # replaced meanwhile
            break
        return message_of(self.topic, self.index, received), received.message_id()

    async def acknowledge(self, *ids: pulsar.MessageId) -> None:
        """Raises BusUnavailable."""
        try:
            await asyncio.gather(*(self._consumer.acknowledge(id) for id in ids))
        except PulsarException as error:
            raise self._unacknowledged(error) from None

    async def acknowledge_up_to(self, id: pulsar.MessageId) -> None:
        """Raises BusUnavailable."""
        try:
            await self._consumer.acknowledge_cumulative(id)
        except PulsarException as error:
            raise self._unacknowledged(error) from None

    async def give_back(self, id: pulsar.MessageId) -> None:
        """Let the broker deliver it again, to anybody."""
        await self._consumer.negative_acknowledge(id)

    async def rejoin(self) -> None:
        """Begin anew: the client's pauses between its tries grow to a minute. Raises as joining does."""
        joined = await self._subscription.consumer(self.topic, self.index)
        gone, self._consumer = self._consumer, joined
        with suppress(PulsarException):
            await gone.close()

    async def close(self) -> None:
        with suppress(PulsarException):
            await self._consumer.close()

    def _unacknowledged(self, error: PulsarException) -> BusUnavailable:
        return BusUnavailable(
            f"an acknowledgement in topic {self.topic!r} did not reach Pulsar ({error.error().name}): "
            "what it was for will be delivered again"
        )


def message_of(topic: str, partition: int, received: pulsar.Message) -> Message:
    id = received.message_id()
    return Message(
        topic=topic,
        partition=partition,
        position=Position(id.ledger_id(), id.entry_id()),
        key=received.partition_key() or None,
        payload=received.data(),
        properties=received.properties(),
    )
