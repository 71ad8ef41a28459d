"""The bus port on Postgres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from backplane.adapters.postgres_bus import consumer as consuming
from backplane.adapters.postgres_bus.connections import Connections
from backplane.adapters.postgres_bus.consumer import Membership, Node, message_of
from backplane.adapters.postgres_bus.failover import FailoverConsumer
from backplane.adapters.postgres_bus.leases import Leases
from backplane.adapters.postgres_bus.publishing import Publishing
from backplane.adapters.postgres_bus.retention import Retention
from backplane.adapters.postgres_bus.shared import SharedConsumer
from backplane.adapters.postgres_bus.topics import Topics
from backplane.adapters.postgres_bus.wakeups import Wakeups
from backplane.ports.bus import BusError, Consumer, Message, Mode, Position, Start
from backplane.telemetry.publish_time import publish_time

_READ = """
SELECT m.partition, m.entry, m.key, m.payload, m.properties FROM bus.messages m
WHERE m.topic_id = $1 AND m.partition = $2 AND m.entry > $3
ORDER BY m.entry LIMIT $4
"""
_HEADS = "SELECT newest FROM bus.heads($1)"
_BACKLOG = "SELECT messages FROM bus.backlog($1, $2)"


class PostgresBus:
    """The bus in the schema ``bus`` of one database. One instance a process; nothing is opened before its first use.

    Args:
        url: ``postgresql://…`` of a ``parley_*`` role, or the owner; a direct connection, no pooler between. The APIs'
            roles may publish and count, no more; the relay's, besides, consume dead letters.
        lease_s: seconds without a heartbeat after which a consumer counts as dead.
        retention: how long messages are kept after every subscription has passed them.
        pool_size: connections for statements; one more listens while there are consumers.
        poll_s: the longest time that a lost notification can delay a message, in seconds.
        timeout_s: seconds after which a call gives up with BusUnavailable.
    """

    def __init__(
        self,
        url: str,
        *,
        lease_s: float = 10.0,
        retention: timedelta = timedelta(hours=24),
        pool_size: int = 4,
        poll_s: float = 1.0,
        timeout_s: float = 10.0,
    ) -> None:
        self._connections = Connections(url, pool_size=pool_size, timeout_s=timeout_s)
        self._topics = Topics(self._connections)
        self._publishing = Publishing(self._connections, self._topics)
        self._retention = Retention(self._connections, retention)
        self._node = Node(
            self._connections, Wakeups(self._connections), Leases(self._connections, lease_s), poll_s=poll_s
        )
        self._consumers: list[consuming.Consumer] = []

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

    async def backlog(self, topic: str, subscription: str) -> list[int]:
        found = await self._topics.get(topic)
        return [row["messages"] for row in await self._connections.fetch(_BACKLOG, found.id, subscription)]

    async def ensure_subscription(self, topics: Sequence[str], subscription: str, start: Start) -> None:
        await self._memberships(topics, subscription, start)

    async def acknowledged(self, topic: str, subscription: str) -> Sequence[Position | None]:
        heads = await self.heads(topic)
        left = await self.backlog(topic, subscription)
        done = (0 if head is None else head.entry - waiting for head, waiting in zip(heads, left, strict=True))
        return [Position(0, entry) if entry > 0 else None for entry in done]

    async def subscribe(
        self, topics: Sequence[str], subscription: str, mode: Mode, *, prefetch: int, start: Start = Start.EARLIEST
    ) -> Consumer:
        """As the port says. Raises also BusError where the subscription is used in the other mode."""
        memberships = await self._memberships(topics, subscription, start)
        other_mode = await self._connections.fetch(
            "SELECT subscription_id FROM bus.set_mode($1, $2)",
            [each.subscription_id for each in memberships],
            mode.value,
        )
        if other_mode:
            raise BusError(f"subscription {subscription!r} is used in the other mode: it cannot be {mode.value}")
        kind = SharedConsumer if mode is Mode.SHARED else FailoverConsumer
        consumer = kind(self._node, memberships, prefetch, lambda: self._consumers.remove(consumer))
        await consumer.start()
        self._consumers.append(consumer)
        return consumer

    async def read(self, topic: str, partition: int, *, after: Position | None, limit: int) -> Sequence[Message]:
        found = await self._topics.get(topic)
        entry = 0 if after is None else after.entry
        rows = await self._connections.fetch(_READ, found.id, found.partition(None, partition), entry, limit)
        return [message_of(topic, row) for row in rows]

    async def heads(self, topic: str) -> Sequence[Position | None]:
        found = await self._topics.get(topic)
        rows = await self._connections.fetch(_HEADS, found.id)
        return [Position(0, row["newest"]) if row["newest"] else None for row in rows]

    async def create_topics(self, topics: Sequence[str], *, partitions: int) -> None:
        """As the port says. Raises BusUnavailable."""
        for topic in topics:
            await self._topics.create(topic, partitions)

    async def maintain(self, now: datetime | None = None) -> int:
        """Make the tables of the days to come and drop those that nobody needs; return how many were dropped.

        To be called once an hour, by any process; where several do, one works. Raises BusUnavailable.
        """
        return await self._retention.maintain(now or datetime.now(UTC))

    async def ping(self) -> None:
        await self._connections.fetch("SELECT 1")

    async def close(self) -> None:
        """Finish what was handed over to be published, leave all subscriptions, and close the connections."""
        await self._topics.settled()
        await self._publishing.drain()
        for consumer in list(self._consumers):
            await consumer.close()
        await self._node.leases.close()
        await self._node.wakeups.close()
        await self._connections.close()

    async def _memberships(self, topics: Sequence[str], subscription: str, start: Start) -> list[Membership]:
        memberships = []
        for name in topics:
            topic = await self._topics.get(name)
            [row] = await self._connections.fetch(
                "SELECT bus.ensure_subscription($1, $2, $3) AS id", topic.id, subscription, start is Start.EARLIEST
            )
            memberships.append(Membership(row["id"], topic))
        return memberships
