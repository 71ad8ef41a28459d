"""Two tenants' events on a real bus, and in the record as far as the projections came."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.adapters.postgres_bus import PostgresBus
from backplane.adapters.pulsar_bus import PulsarBus
from backplane.ports.bus import Bus, Message
from event_schemas.codec import AnyEnvelope, encode
from event_schemas.generation import SubmitPrompt
from event_schemas.topics import EVENTS, all_topics, commands
from projections.batch import Batch
from projections.event_log import Received
from tests.conftest import TestDatabase
from tests.unit.projections.story import Story

TOPICS = all_topics(["local"])
BUSES = ["postgres", pytest.param("pulsar", marks=pytest.mark.pulsar)]
PULSAR_TENANT = "kept"


@dataclass
class World:
    """Events that are published, and recorded as far as the projections came."""

    bus: Bus
    database: PostgresDatabase
    projector: PostgresDatabase
    owner: asyncpg.Connection
    stories: list[Story]
    recorded: list[AnyEnvelope] = field(default_factory=list)

    async def publish(
        self, *events: AnyEnvelope, raw: bytes | None = None, partition: int = 0
    ) -> list[tuple[AnyEnvelope, Message]]:
        sent = []
        for event in events:
            topic = commands("local") if isinstance(event.data, SubmitPrompt) else EVENTS
            payload = raw or encode(event)
            position = await self.bus.publish(topic, payload, key=str(event.tenantid), partition=partition)
            sent.append((event, Message(topic, partition, position, str(event.tenantid), payload)))
        return sent

    async def project(self, sent: Sequence[tuple[AnyEnvelope, Message]]) -> None:
        received = [Received(event, message.payload) for event, message in sent]
        await Batch(self.projector).apply(received, [message for _, message in sent])
        self.recorded += [event for event, _ in sent]

    async def tell(self, *events: AnyEnvelope, partition: int = 0) -> None:
        await self.project(await self.publish(*events, partition=partition))

    async def alter(self, sql: str, *values: object) -> None:
        assert await self.owner.execute(sql, *values) in ("UPDATE 1", "DELETE 1")


@asynccontextmanager
async def told(request: pytest.FixtureRequest, database: TestDatabase) -> AsyncIterator[World]:
    """On the bus that ``request`` names; in Pulsar, the namespace is called as the database."""
    bus: Bus
    if request.param == "postgres":
        bus = PostgresBus(database.owner_url)
    else:
        broker = request.getfixturevalue("shared_broker")
        bus = PulsarBus(broker.address(PULSAR_TENANT, database.name), timeout_s=60)
    await bus.create_topics(TOPICS, partitions=2)
    now = datetime.now(UTC) - timedelta(minutes=10)
    made = World(
        bus,
        PostgresDatabase(database.owner_url, pool_size=4),
        PostgresDatabase(database.role_url("projections"), pool_size=2),
        await asyncpg.connect(database.owner_url),
        [Story(now=now), Story(now=now)],
    )
    for story in made.stories:
        await made.tell(*story.whole(attempts=2))
    yield made
    await made.owner.close()
    await made.projector.close()
    await made.database.close()
    await bus.close()
