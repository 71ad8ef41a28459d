"""The topics there are, and which partition a message belongs to."""

from __future__ import annotations

from dataclasses import dataclass

from backplane.adapters.postgres_bus.connections import Connections
from backplane.ports.bus import UnknownTopic
from backplane.ports.partitioning import Partitioned
from backplane.ports.single_flight import SingleFlight


@dataclass(frozen=True, slots=True)
class Topic(Partitioned):
    id: int


class Topics:
    """Names → topics. A topic never changes, so what was found once is remembered."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._known: dict[str, Topic] = {}
        self._looking_up = SingleFlight(self._look_up)

    async def get(self, name: str) -> Topic:
        """Raises UnknownTopic, BusUnavailable."""
        known = self._known.get(name)
        # Shared, so that the first messages of a process keep their order.
        return known if known is not None else await self._looking_up.get(name)

    async def settled(self) -> None:
        """Return once no look-up is under way."""
        await self._looking_up.settled()

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
