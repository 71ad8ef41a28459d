"""A bus and a database that live in memory and keep to their ports, for what only the runner decides."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from backplane.ports.bus import BusUnavailable, Consumer, Message, Mode, Position, Start
from backplane.ports.database import Row
from backplane.telemetry.readiness import Readiness
from projections import positions
from projections.event_log import Received
from projections.positions import Place, SetBack


class WatchedReadiness(Readiness):
    """Remembers every reason that was ever given."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.blocked = False

    def block(self, name: str, reason: str) -> None:
        super().block(name, reason)
        self.said.append(reason)
        self.blocked = True

    def unblock(self, name: str) -> None:
        super().unblock(name)
        self.blocked = False


class MemoryConsumer:
    """One reader of one list of messages; what is nacked or left un-acked stays in ``unacked``."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._waiting = list(messages)
        self._arrived = asyncio.Event()
        self.unacked: list[Message] = []
        self.acked: list[Message] = []
        self.acks_to_lose = 0
        self.closed = False

    def send(self, messages: Sequence[Message]) -> None:
        self._waiting += messages
        self._arrived.set()

    async def receive(self, limit: int = 1) -> Sequence[Message]:
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        got, self._waiting = self._waiting[:limit], self._waiting[limit:]
        self.unacked += got
        return got

    async def ack(self, *messages: Message) -> None:
        if self.acks_to_lose:
            self.acks_to_lose -= 1
            raise BusUnavailable("the broker does not answer")
        for message in messages:
            self.unacked.remove(message)
        self.acked += messages

    async def nack(self, message: Message, *, delay: float = 0.0) -> None:
        self.unacked.remove(message)
        self._waiting.append(message)
        self._arrived.set()

    async def close(self) -> None:
        self.closed = True


class MemoryPublisher:
    """Keeps what was published by topic."""

    def __init__(self) -> None:
        self.published: dict[str, list[tuple[bytes, Mapping[str, str]]]] = defaultdict(list)
        self.failures = 0

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        key: str | None = None,
        partition: int | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> Position:
        if self.failures:
            self.failures -= 1
            raise BusUnavailable("the broker does not answer")
        self.published[topic].append((payload, properties or {}))
        return Position(0, len(self.published[topic]) - 1)

    async def backlog(self, topic: str, subscription: str) -> list[int]:
        return [len(self.published[topic])]


class MemoryBus(MemoryPublisher):
    """Hands out the consumers that it is given, one a subscription; an error among them is raised instead."""

    def __init__(self, *consumers: MemoryConsumer | BusUnavailable) -> None:
        super().__init__()
        self._consumers = list(consumers)
        self.subscribed: list[tuple[tuple[str, ...], str, Mode]] = []

    async def ensure_subscription(self, topics: Sequence[str], subscription: str, start: Start) -> None:
        raise AssertionError("projections only subscribe")

    async def subscribe(
        self, topics: Sequence[str], subscription: str, mode: Mode, *, prefetch: int, start: Start = Start.EARLIEST
    ) -> Consumer:
        self.subscribed.append((tuple(topics), subscription, mode))
        consumer = self._consumers.pop(0)
        if isinstance(consumer, BusUnavailable):
            raise consumer
        return consumer

    async def read(self, topic: str, partition: int, *, after: Position | None, limit: int) -> Sequence[Message]:
        raise AssertionError("projections only subscribe")

    async def heads(self, topic: str) -> Sequence[Position | None]:
        return [None]

    async def acknowledged(self, topic: str, subscription: str) -> Sequence[Position | None]:
        return [None]

    async def create_topics(self, topics: Sequence[str], *, partitions: int) -> None:
        raise AssertionError("projections make no topics")

    async def ping(self) -> None: ...

    async def close(self) -> None: ...


class EmptyDatabase:
    """Knows no position."""

    @asynccontextmanager
    async def system(self) -> AsyncIterator[EmptyDatabase]:
        yield self

    async def all(self, sql: str, /, **parameters: Any) -> list[Row]:
        return []


class FixedWatch:
    """Asks for all that ``least`` says before anything."""

    def __init__(self, least: Position | None = None) -> None:
        self._least = least
        self.committed: list[Message] = []

    async def least(self, messages: Sequence[Message]) -> Mapping[Place, Position]:
        if self._least is None:
            return {}
        return {(message.topic, message.partition): self._least for message in messages}

    def passed(self, messages: Sequence[Message]) -> None:
        self.committed += messages


class MemoryBatch:
    """A batch that is all or nothing, like the real one, and fails where ``fails`` says so."""

    def __init__(self, fails: Callable[[Sequence[Received]], Exception | None] = lambda _: None) -> None:
        self._fails = fails
        self.tries = 0
        self.applied: list[Received] = []
        self.passed: list[Message] = []

    async def apply(
        self, received: Sequence[Received], passed: Sequence[Message], least: Mapping[Place, Position] | None = None
    ) -> int:
        self.tries += 1
        reached = positions.furthest(self.passed)
        if any(place not in reached or reached[place] < position for place, position in (least or {}).items()):
            raise SetBack("Postgres was set back")
        error = self._fails(received)
        if error is not None:
            raise error
        known = {each.envelope.id for each in self.applied}
        fresh = [each for each in received if each.envelope.id not in known]
        self.applied += fresh
        self.passed += passed
        return len(fresh)
