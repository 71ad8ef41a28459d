"""What shared and failover consumers have in common: joining, the lease, the buffer, and waiting through outages."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID, uuid4

import asyncpg
import orjson

from backplane.adapters.postgres_bus.connections import Connections
from backplane.adapters.postgres_bus.leases import Leases
from backplane.adapters.postgres_bus.tasks import stop
from backplane.adapters.postgres_bus.topics import Topic
from backplane.adapters.postgres_bus.wakeups import Heard, Wakeups, subscription_channel, topic_channel
from backplane.ports.bus import BusError, BusUnavailable, Message, Position

logger = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Membership:
    """One topic of a consumer, and the subscription on it."""

    subscription_id: int
    topic: Topic


@dataclass(frozen=True, slots=True)
class Node:
    """What all consumers of a process share."""

    connections: Connections
    wakeups: Wakeups
    leases: Leases
    poll_s: float


def message_of(topic: str, row: asyncpg.Record) -> Message:
    """From a row with partition, entry, key, payload and properties."""
    return Message(
        topic=topic,
        partition=row["partition"],
        position=Position(0, row["entry"]),
        key=None if row["key"] is None else row["key"].decode(),
        payload=row["payload"],
        properties={} if row["properties"] is None else orjson.loads(row["properties"]),
    )


class Consumer(ABC):
    """A pump task talks to Postgres and fills a buffer; ``receive`` hands out what is in it."""

    def __init__(
        self, node: Node, memberships: Sequence[Membership], prefetch: int, closed: Callable[[], None]
    ) -> None:
        self.id: UUID = uuid4()
        self.node = node
        self.memberships = {membership.subscription_id: membership for membership in memberships}
        self.prefetch = max(1, prefetch)
        self.wanted = 0
        """How many messages a pending ``receive`` waits for."""
        self.epoch = 0
        """Counts the leases lost. What was asked for in an earlier epoch is not ours."""
        self._tell_closed = closed
        self._wake = asyncio.Event()
        self._ready = asyncio.Event()
        self._receiving = asyncio.Lock()
        self._pump: asyncio.Task[None] | None = None
        self._joined = False
        self._failure: BaseException | None = None
        self._lease_from = 0.0
        self._looked_at_all = 0.0
        self._channels: dict[str, Heard] = {}
        for membership in memberships:
            self._channels[topic_channel(membership.topic.id)] = partial(self._heard_topic, membership)
            self._channels[subscription_channel(membership.subscription_id)] = self._heard_subscription

    async def start(self) -> None:
        """Join. Raises BusUnavailable."""
        await self.node.wakeups.listen(self._channels)
        try:
            await self._join()
        except BaseException:
            await self.node.wakeups.unlisten(self._channels)
            raise
        self.node.leases.add(self)
        self._pump = asyncio.create_task(self._run())

    async def receive(self, limit: int = 1) -> Sequence[Message]:
        if limit < 1:
            raise ValueError(f"limit is {limit}; ask for at least one message")
        async with self._receiving:
            try:
                while True:
                    if self._failure is not None:
                        raise self._failure
                    batch = self.hand_out(limit) if self.holds_lease else []
                    if batch:
                        return batch
                    self._ready.clear()
                    self.wanted = min(limit, self.prefetch)
                    self._wake.set()
                    await self._ready.wait()
            finally:
                self.wanted = 0

    @abstractmethod
    async def ack(self, *messages: Message) -> None: ...

    @abstractmethod
    async def nack(self, message: Message, *, delay: float = 0.0) -> None: ...

    async def close(self) -> None:
        if self._pump is None:
            return
        pump, self._pump = self._pump, None
        self._tell_closed()
        self.node.leases.remove(self)
        await stop(pump)
        self.fail(BusError("this consumer was closed"))
        await self.node.wakeups.unlisten(self._channels)
        try:
            await self.node.connections.fetch("SELECT bus.leave(ARRAY[$1::uuid])", self.id)
        except BusUnavailable as error:
            logger.warning(
                "could not tell the bus that a consumer left; what it held comes back when its lease runs out: %s",
                error,
                extra={"action": "bus_leave_failed"},
            )

    @property
    def holds_lease(self) -> bool:
        """False when others may have taken over: the process was held up, or the server was away, for too long."""
        return self._joined and time.monotonic() < self._lease_from + self.node.leases.lease_s

    def renewed(self, at: float) -> None:
        self._lease_from = at
        self._ready.set()

    def lost(self) -> None:
        self._joined = False
        self.epoch += 1
        self.drop_all()
        self._wake.set()

    def wake(self) -> None:
        """Let the pump look again."""
        self._wake.set()

    def fail(self, failure: BaseException) -> None:
        self._failure = failure
        self._ready.set()

    def deliverable(self) -> None:
        """There is something to hand out."""
        self._ready.set()

    @abstractmethod
    async def fetch(self) -> float:
        """Fill the buffer where there is room; return after how many seconds to look again without a wake-up."""

    @abstractmethod
    def hand_out(self, limit: int) -> list[Message]: ...

    @abstractmethod
    def drop_all(self) -> None:
        """Forget everything held: it belongs to others now."""

    @abstractmethod
    def look_at(self, membership: Membership, partitions: Sequence[int]) -> None:
        """There may be new messages in these."""

    @abstractmethod
    def after_outage(self) -> None:
        """A call failed, and nobody knows whether it was carried out."""

    def look_everywhere(self) -> None:
        for membership in self.memberships.values():
            self.look_at(membership, range(membership.topic.partitions))

    @abstractmethod
    def members_changed(self) -> None:
        """Consumers came or went, or messages came back."""

    def _heard_topic(self, membership: Membership, payload: str | None) -> None:
        if payload is None:
            self.look_everywhere()
        else:
            self.look_at(membership, [int(part) for part in payload.split(",")])
        self._wake.set()

    def _heard_subscription(self, _payload: str | None) -> None:
        self.members_changed()
        self._wake.set()

    async def _join(self) -> None:
        at = time.monotonic()
        if self.epoch:
            await self.node.connections.fetch("SELECT bus.leave(ARRAY[$1::uuid])", self.id)
        await self.node.connections.fetch(
            "SELECT bus.join($1, $2, $3)", self.id, list(self.memberships), self.node.leases.lease_s
        )
        self._joined = True
        self._lease_from = at
        self.members_changed()
        self.look_everywhere()

    async def _run(self) -> None:
        pause_s = 0.02
        while True:
            self._wake.clear()
            try:
                if time.monotonic() >= self._looked_at_all + self.node.poll_s:
                    self._looked_at_all = time.monotonic()
                    self.members_changed()
                    self.look_everywhere()
                if not self._joined:
                    await self._join()
                wait_s = await self.fetch()
            except BusUnavailable as error:
                logger.debug("waiting for the bus: %s", error, extra={"action": "bus_waiting"})
                self.after_outage()
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
                continue
            except Exception as error:
                self.fail(error)
                return
            pause_s = 0.02
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(wait_s, self.node.poll_s)):
                    await self._wake.wait()
