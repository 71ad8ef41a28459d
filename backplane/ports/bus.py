"""The durable queue between Parley's services, shaped after Apache Pulsar.

A topic has a fixed number of partitions; a partition is an ordered log; a subscription remembers what was acknowledged.
Delivery is at least once everywhere.

    BusError
    ├── BusUnavailable     the bus cannot be reached, or the outcome of a publish is unknown: try again
    ├── BusRefused         credentials, a permission, or a subscription used in the other mode: an operator must act
    ├── MessageTooLarge    over MAX_MESSAGE_BYTES; no retry can help
    └── UnknownTopic       the topic does not exist: set-up was not run, or a name is wrong
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol

MAX_MESSAGE_BYTES = 5 * 1024 * 1024 - 64 * 1024
"""Payload limit in bytes: Pulsar's default of 5 MiB, less room for properties and the broker's own framing."""


class BusError(Exception):
    """Base of what a bus raises."""


class BusUnavailable(BusError):
    """The bus cannot be reached, or nobody knows whether a publish arrived. Safe to repeat, since consumers dedup."""


class BusRefused(BusError):
    """The bus answers, and says no. An operator must act; what was asked for may work afterwards."""


class MessageTooLarge(BusError):
    """The payload is over ``MAX_MESSAGE_BYTES``."""


class UnknownTopic(BusError):
    """There is no such topic."""


class Position(NamedTuple):
    """A place in one partition, ordered within it. In Pulsar a ledger and an entry; the Postgres bus has one ledger."""

    ledger: int
    entry: int


@dataclass(frozen=True, slots=True)
class Message:
    topic: str
    partition: int
    position: Position
    key: str | None
    payload: bytes
    properties: Mapping[str, str] = field(default_factory=dict)


class Mode(Enum):
    """How the consumers of one subscription divide its messages."""

    SHARED = "shared"
    """Each message goes to exactly one live consumer; no order is promised."""

    FAILOVER = "failover"
    """Each partition has one live reader and is delivered in order; another takes over when it dies."""


class Start(Enum):
    """Where a subscription that is new begins."""

    EARLIEST = "earliest"
    LATEST = "latest"


class Publisher(Protocol):
    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        key: str | None = None,
        partition: int | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> Position:
        """Publish, and return once the message is durable.

        ``partition`` chooses the partition; else messages of one ``key`` share one, and keyless ones are spread.

        Raises: MessageTooLarge, UnknownTopic, BusUnavailable.
        """

    async def backlog(self, topic: str, subscription: str) -> list[int]:
        """Messages not yet acknowledged, for each partition of the topic, by index. May be a moment old.

        Raises: UnknownTopic, BusUnavailable.
        """


class Consumer(Protocol):
    """One member of a subscription. What it received stays its own until acked, nacked, closed, or dead."""

    async def receive(self, limit: int = 1) -> Sequence[Message]:
        """Wait until there is a message, then return 1 to ``limit`` of those at hand.

        Waits through outages of the bus. Keep one call pending rather than cancelling it by a timeout: what arrives
        for a cancelled call stays with this consumer, unseen.

        Raises: UnknownTopic (deleted under us).
        """

    async def ack(self, *messages: Message) -> None:
        """These were handled; do not deliver them again. Returns once that is recorded, or, where the bus confirms no
        acks (Pulsar), on its way: one that gets lost means another delivery.

        Acks of messages that are no longer this consumer's own (its lease ran out) are dropped: somebody else has them.
        Raises: BusUnavailable (they may then be delivered again).
        """

    async def nack(self, message: Message, *, delay: float = 0.0) -> None:
        """Deliver this again, to any consumer of the subscription, in ``delay`` seconds at the earliest."""

    async def close(self) -> None:
        """Leave; what was received and not acked is delivered to others at once."""


class Subscriber(Protocol):
    async def ensure_subscription(self, topics: Sequence[str], subscription: str, start: Start) -> None:
        """Make the subscription on these topics where it is not there yet, without consuming.

        Raises: UnknownTopic, BusUnavailable.
        """

    async def acknowledged(self, topic: str, subscription: str) -> Sequence[Position | None]:
        """Up to where a Failover subscription has acknowledged each partition, by index, without a gap; None where that
        is nothing, or nothing that is kept. May be a moment old, and is never ahead.

        Raises: UnknownTopic, BusUnavailable.
        """

    async def subscribe(
        self, topics: Sequence[str], subscription: str, mode: Mode, *, prefetch: int, start: Start = Start.EARLIEST
    ) -> Consumer:
        """Join ``subscription`` on all of ``topics``.

        ``prefetch`` is the most messages that may wait, received by this process and not yet by its caller.
        Raises: UnknownTopic, BusUnavailable.
        """


class Log(Protocol):
    """Reading without a subscription: nothing is acknowledged and nobody else is affected."""

    async def read(self, topic: str, partition: int, *, after: Position | None, limit: int) -> Sequence[Message]:
        """Up to ``limit`` messages of a partition in order, beginning after ``after`` (None: the oldest kept).

        Raises: UnknownTopic, BusUnavailable.
        """

    async def heads(self, topic: str) -> Sequence[Position | None]:
        """The newest position of each partition, by index; None where nothing was ever published.

        Raises: UnknownTopic, BusUnavailable.
        """


class Bus(Publisher, Subscriber, Log, Protocol):
    async def create_topics(self, topics: Sequence[str], *, partitions: int) -> None:
        """Make topics that are not there yet; those that exist keep their partitions. Idempotent."""

    async def ping(self) -> None:
        """Raises BusUnavailable if the bus does not answer."""

    async def close(self) -> None: ...
