"""The topics there are, and which partition a message belongs to."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from backplane.adapters.postgres_bus.connections import Connections
from backplane.ports.bus import UnknownTopic
from backplane.ports.partitioning import Partitioned


@dataclass(frozen=True, slots=True)
class Topic(Partitioned):
    id: int


class Topics:
    """Names → topics. A topic never changes, so what was found once is remembered."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._known: dict[str, Topic] = {}
        self._looking: dict[str, asyncio.Task[Topic]] = {}

    async def get(self, name: str) -> Topic:
        """Raises UnknownTopic, BusUnavailable."""
        known = self._known.get(name)
        if known is not None:
            return known
        # Those who ask at the same time share one look-up and go on in the order in which they asked, so that the
        # first messages of a process keep theirs.
        looking = self._looking.get(name)
        if looking is None:
            looking = self._looking[name] = asyncio.create_task(self._look_up(name))
            looking.add_done_callback(lambda _: self._looking.pop(name))
        return await asyncio.shield(looking)

    async def settled(self) -> None:
        """Return once no look-up is under way, not even one that nobody waits for any more."""
        await asyncio.gather(*self._looking.values(), return_exceptions=True)

    async def _look_up(self, name: str) -> Topic:
        rows = await self._connections.fetch("SELECT topic_id, partitions FROM bus.topics WHERE name = $1", name)
        if not rows:
            raise UnknownTopic(f"there is no topic {name!r}: `parley migrate` makes those that the settings name")
        [row] = rows
        topic = self._known[name] = Topic(name, row["partitions"], row["topic_id"])
        return topic

    def forget(self, name: str) -> None:
        """It turned out not to be there any more."""
        self._known.pop(name, None)

    async def create(self, name: str, partitions: int) -> None:
        """Make the topic if it is not there. Raises BusUnavailable."""
        await self._connections.fetch("SELECT bus.create_topic($1, $2)", name, partitions)
