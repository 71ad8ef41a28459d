"""Publishing: the messages of one tick to one topic are one transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import asyncpg
import orjson

from backplane.adapters.postgres_bus.connections import Connections
from backplane.adapters.postgres_bus.topics import Topic, Topics
from backplane.ports.bus import MAX_MESSAGE_BYTES, MessageTooLarge, Position, UnknownTopic
from backplane.ports.group_commit import GroupCommit

_PUBLISH = "SELECT partition, base FROM bus.publish($1, $2, $3, $4, $5)"
_MAKE_TODAY = "SELECT bus.make_day($1, (clock_timestamp() AT TIME ZONE 'UTC')::date)"


@dataclass(frozen=True, slots=True)
class _Outgoing:
    partition: int
    key: bytes | None
    payload: bytes
    properties: bytes | None

    @property
    def size(self) -> int:
        return len(self.payload) + len(self.properties or b"") + len(self.key or b"")


class Publishing:
    def __init__(self, connections: Connections, topics: Topics) -> None:
        self._connections = connections
        self._topics = topics
        self._groups: dict[str, GroupCommit[_Outgoing, Position]] = {}

    async def publish(
        self,
        name: str,
        payload: bytes,
        *,
        key: str | None,
        partition: int | None,
        properties: Mapping[str, str] | None,
    ) -> Position:
        if len(payload) > MAX_MESSAGE_BYTES:
            raise MessageTooLarge(
                f"a message for topic {name!r} has {len(payload)} bytes; the bus takes {MAX_MESSAGE_BYTES} at most"
            )
        topic = await self._topics.get(name)
        outgoing = _Outgoing(
            topic.partition(key, partition),
            None if key is None else key.encode(),
            payload,
            orjson.dumps(dict(properties)) if properties else None,
        )
        group = self._groups.get(name)
        if group is None:
            # One group a topic: a burst of events does not hold up a command.
            write = partial(self._write, name)
            group = self._groups[name] = GroupCommit(write, size=lambda item: item.size)
        return await group.submit(outgoing)

    async def drain(self) -> None:
        """Return once what was handed over is published or refused."""
        for group in list(self._groups.values()):
            await group.drain()

    async def _write(self, name: str, batch: list[_Outgoing]) -> Sequence[Position | Exception]:
        topic = await self._topics.get(name)
        values = (
            topic.id,
            [message.partition for message in batch],
            [message.key for message in batch],
            [message.payload for message in batch],
            [message.properties for message in batch],
        )
        async with self._connections.connection() as connection:
            try:
                rows = await connection.fetch(_PUBLISH, *values)
            except asyncpg.CheckViolationError:
                # The day has no table yet: nobody has maintained the bus since the day before yesterday.
                await connection.fetch(_MAKE_TODAY, topic.id)
                rows = await connection.fetch(_PUBLISH, *values)
        return self._positions(topic, batch, {row["partition"]: row["base"] for row in rows})

    def _positions(self, topic: Topic, batch: list[_Outgoing], bases: dict[int, int]) -> list[Position | Exception]:
        published: dict[int, int] = defaultdict(int)
        results: list[Position | Exception] = []
        for message in batch:
            base = bases.get(message.partition)
            if base is None:
                self._topics.forget(topic.name)
                results.append(UnknownTopic(f"topic {topic.name!r} is gone"))
            else:
                published[message.partition] += 1
                results.append(Position(0, base + published[message.partition]))
        return results
