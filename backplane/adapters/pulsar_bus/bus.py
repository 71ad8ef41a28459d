"""The bus port on Apache Pulsar."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta

import pulsar
import uuid_utils
from pulsar.asyncio import PulsarException

from backplane.adapters.pulsar_bus import consumer as consuming
from backplane.adapters.pulsar_bus.address import PulsarAddress
from backplane.adapters.pulsar_bus.admin import Admin
from backplane.adapters.pulsar_bus.broker import Broker
from backplane.adapters.pulsar_bus.errors import silent, translated
from backplane.adapters.pulsar_bus.failover import FailoverConsumer
from backplane.adapters.pulsar_bus.partition import Subscription, message_of
from backplane.adapters.pulsar_bus.publishing import Publishing
from backplane.adapters.pulsar_bus.shared import SharedConsumer
from backplane.ports.bus import Consumer, Message, Mode, Position, Start, UnknownTopic
from backplane.telemetry.publish_time import publish_time
from event_schemas.topics import EVENTS

_READ_QUEUE = 500


class PulsarBus:
    """One instance a process; nothing is opened before its first use.

    Args:
        address: the broker and the namespace.
        retention: how long messages are kept after every subscription has passed them; set by ``create_topics``.
        watch_s: seconds between two looks at whether a consumer's topics are still there and have new partitions.
        timeout_s: seconds after which a call gives up with BusUnavailable.
    """

    def __init__(
        self,
        address: PulsarAddress,
        *,
        retention: timedelta = timedelta(hours=24),
        watch_s: float = 2.0,
        timeout_s: float = 10.0,
    ) -> None:
        self._broker = Broker(address, timeout_s)
        self._admin = Admin(address, timeout_s)
        self._publishing = Publishing(self._broker)
        self._retention = retention
        self._watch_s = watch_s
        self._consumers: list[consuming.Consumer] = []

    @property
    def address(self) -> PulsarAddress:
        return self._broker.address

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        key: str | None = None,
        partition: int | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> Position:
        """As the port says. Raises also ValueError where the topic has no such partition."""
        with publish_time.labels(topic).time():
            return await self._publishing.publish(topic, payload, key=key, partition=partition, properties=properties)

    async def allow(self, role: str) -> None:
        """Let whoever the broker knows as ``role`` publish and subscribe. Raises BusUnavailable, BusRefused."""
        await self._admin.allow(role)

    async def backlog(self, topic: str, subscription: str) -> list[int]:
        """As the port says. Raises also BusRefused."""
        return await self._admin.backlog(topic, subscription)

    async def ensure_subscription(self, topics: Sequence[str], subscription: str, start: Start) -> None:
        """As the port says. Raises also BusRefused."""
        for topic in topics:
            await self._admin.create_subscription(topic, subscription, start)

    async def acknowledged(self, topic: str, subscription: str) -> Sequence[Position | None]:
        """As the port says. Raises also BusRefused."""
        return await self._admin.acknowledged(topic, subscription)

    async def subscribe(
        self, topics: Sequence[str], subscription: str, mode: Mode, *, prefetch: int, start: Start = Start.EARLIEST
    ) -> Consumer:
        """As the port says. Where a Shared subscription has more partitions than ``prefetch``, one message of each may
        wait, for a tenth of a second.

        Raises also BusRefused, where the subscription is used in the other mode by somebody who is connected.
        """
        places = [(name, index) for name in topics for index in range((await self._broker.look_up(name)).partitions)]
        # A failover partition goes to consumers in the order of their names: he who came first stays the first.
        name = str(uuid_utils.uuid7())
        queue = 0 if mode is Mode.SHARED else max(1, prefetch // (2 * len(places)))
        membership = Subscription(self._broker, subscription, mode, start, name, queue)
        joining = await asyncio.gather(*(membership.join(*each) for each in places), return_exceptions=True)
        failures = [each for each in joining if isinstance(each, BaseException)]
        partitions = [each for each in joining if not isinstance(each, BaseException)]
        if failures:
            await asyncio.gather(*(partition.close() for partition in partitions))
            raise failures[0]

        def left() -> None:
            self._consumers.remove(consumer)

        consumer: consuming.Consumer
        if mode is Mode.SHARED:
            consumer = SharedConsumer(membership, partitions, self._watch_s, left)
        else:
            consumer = FailoverConsumer(membership, partitions, self._watch_s, left, max(1, prefetch // 2))
        self._consumers.append(consumer)
        consumer.start()
        return consumer

    async def read(self, topic: str, partition: int, *, after: Position | None, limit: int) -> Sequence[Message]:
        """As the port says. Raises also BusRefused."""
        index = (await self._broker.look_up(topic)).partition(None, partition)
        start = pulsar.MessageId.earliest if after is None else pulsar.MessageId(index, *after, -1)
        messages: list[Message] = []
        try:
            reader = await self._broker.client.create_reader(
                self._broker.address.topic(topic, index), start, receiver_queue_size=min(limit, _READ_QUEUE)
            )
            try:
                while len(messages) < limit and await reader.has_message_available():
                    messages.append(message_of(topic, index, await reader.read_next()))
            finally:
                with suppress(PulsarException):
                    await reader.close()
        except PulsarException as error:
            raise translated(error, self._broker.address, topic, "read") from None
        return messages

    async def heads(self, topic: str) -> Sequence[Position | None]:
        """As the port says. Raises also BusRefused."""
        return await self._admin.heads(topic)

    async def create_topics(self, topics: Sequence[str], *, partitions: int) -> None:
        """As the port says; first the tenant and the namespace with its policies. Raises BusUnavailable, BusRefused."""
        await self._admin.set_up_namespace(self._retention)
        for topic in topics:
            await self._admin.create_topic(topic, partitions)

    async def ping(self) -> None:
        """As the port says. Raises also BusRefused."""
        try:
            async with asyncio.timeout(self._broker.timeout_s):
                await self._broker.look_up(EVENTS)
        except TimeoutError:
            raise silent(self._broker.address, "does not answer") from None
        except UnknownTopic:
            pass  # it answers

    async def close(self) -> None:
        """Finish what was handed over to be published, leave all subscriptions, and close the connections."""
        await self._publishing.drain()
        for each in list(self._consumers):
            await each.close()
        await self._broker.close()
        await self._admin.close()
