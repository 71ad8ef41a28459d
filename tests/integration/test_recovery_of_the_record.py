"""Postgres restored to before the newest events, or a bus that came back empty: what the projections make of it.

Where the bus is the one in Postgres, it has a database of its own here, so that one can be set back without the other.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.adapters.postgres_bus.bus import PostgresBus
from backplane.adapters.pulsar_bus import PulsarBus
from backplane.ports.bus import Bus
from backplane.ports.freshness import caught_up
from backplane.settings import PoolSettings, Settings
from event_schemas.codec import AnyEnvelope
from event_schemas.topics import PROJECTIONS, all_topics, dead_letters
from projections.batch import READ_MODELS
from projections.verify import verify
from tests.backup import dump, restore
from tests.conftest import PostgresServer, TestDatabase
from tests.integration.projecting import projecting, publish
from tests.unit.projections.doubles import WatchedReadiness
from tests.unit.projections.story import Story

pytestmark = pytest.mark.timeout(240)

SETTINGS = Settings(pools={"local": PoolSettings(backend="scripted")})
TOPICS = all_topics(["local"])
PATIENCE_S = 60.0


@dataclass
class World:
    models: TestDatabase
    open_bus: Callable[[], Bus]

    async def set_up(self) -> None:
        bus = self.open_bus()
        await bus.create_topics([*TOPICS, *map(dead_letters, TOPICS)], partitions=2)
        await bus.close()

    async def publish(self, facts: Sequence[AnyEnvelope]) -> None:
        bus = self.open_bus()
        await publish(bus, facts)
        await bus.close()

    def projections(self) -> AbstractAsyncContextManager[WatchedReadiness]:
        return projecting(self.open_bus(), self.models, SETTINGS)

    async def project_all(self) -> None:
        """Run the projections until they have passed, and acknowledged, all that there is."""
        async with self.projections():
            await self.passed()

    async def passed(self) -> None:
        bus, reader = self.open_bus(), PostgresDatabase(self.models.owner_url, pool_size=1)
        try:
            assert await caught_up(bus, reader, TOPICS, PATIENCE_S)
            async with asyncio.timeout(PATIENCE_S):
                while any([sum(await bus.backlog(topic, PROJECTIONS)) for topic in TOPICS]):
                    await asyncio.sleep(0.02)
        finally:
            await bus.close()
            await reader.close()

    async def recorded(self) -> set[uuid.UUID]:
        """The ids of all lines of the record, whose chain is right."""
        reader = PostgresDatabase(self.models.owner_url, pool_size=2)
        _, wrong = await verify(reader, READ_MODELS, lambda _: None)
        assert wrong == []
        rows = await reader.at_once("SELECT id FROM read_models.event_log")
        await reader.close()
        assert len({row["id"] for row in rows}) == len(rows)
        return {row["id"] for row in rows}


@pytest.fixture(params=["postgres", pytest.param("pulsar", marks=pytest.mark.pulsar)])
async def world(
    request: pytest.FixtureRequest, database: TestDatabase, postgres_server: PostgresServer, migrated_template: str
) -> AsyncIterator[World]:
    open_bus: Callable[[], Bus]
    bus_database = TestDatabase(postgres_server, f"b{uuid.uuid4().hex}")
    owner = await asyncpg.connect(postgres_server.owner_url())
    if request.param == "pulsar":
        broker = request.getfixturevalue("shared_broker")

        def open_bus() -> Bus:
            return PulsarBus(broker.address("recovery", bus_database.name), watch_s=0.2, timeout_s=60)
    else:
        await owner.execute(f"CREATE DATABASE {bus_database.name} TEMPLATE {migrated_template}")

        def open_bus() -> Bus:
            return PostgresBus(bus_database.owner_url, lease_s=2)

    made = World(database, open_bus)
    await made.set_up()
    yield made
    await owner.execute(f"DROP DATABASE IF EXISTS {bus_database.name} WITH (FORCE)")
    await owner.close()


def ids(facts: Sequence[AnyEnvelope]) -> set[uuid.UUID]:
    return {fact.id for fact in facts}


def told(count: int) -> list[AnyEnvelope]:
    return [fact for _ in range(count) for fact in Story().whole()]


async def test_a_restored_postgres_catches_up_from_the_bus(world: World, tmp_path: Path) -> None:
    before, lost = told(4), told(4)
    await world.publish(before)
    await world.project_all()
    await dump(world.models.server, world.models.name, tmp_path / "backup")
    await world.publish(lost)
    await world.project_all()
    assert await world.recorded() == ids([*before, *lost])

    await restore(world.models.server, world.models.name, tmp_path / "backup")
    assert await world.recorded() == ids(before)
    since = told(1)
    await world.publish(since)
    await world.project_all()
    assert await world.recorded() == ids([*before, *lost, *since])


async def test_what_a_restored_postgres_lacks_is_read_though_nothing_new_comes(world: World, tmp_path: Path) -> None:
    await dump(world.models.server, world.models.name, tmp_path / "empty")
    facts = told(3)
    await world.publish(facts)
    await world.project_all()
    await restore(world.models.server, world.models.name, tmp_path / "empty")
    assert await world.recorded() == set()
    await world.project_all()
    assert await world.recorded() == ids(facts)


async def test_a_postgres_that_is_set_back_under_running_projections_is_noticed(world: World) -> None:
    """As when a replica takes over that was behind."""
    before, lost, since = (Story().whole() for _ in range(3))
    owner = await asyncpg.connect(world.models.owner_url)
    async with world.projections():
        await world.publish(before)
        await world.passed()
        tables = [
            row[0] for row in await owner.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'read_models'")
        ]
        await owner.execute("CREATE SCHEMA kept")
        for table in tables:
            await owner.execute(f"CREATE TABLE kept.{table} AS TABLE read_models.{table}")
        await world.publish(lost)
        await world.passed()
        async with owner.transaction():
            for table in tables:
                await owner.execute(f"TRUNCATE read_models.{table}")
                await owner.execute(f"INSERT INTO read_models.{table} SELECT * FROM kept.{table}")
        # They come by on the same partitions, as the ones that are gone did, since each tenant has its own.
        await world.publish([*(fact.model_copy(update={"id": uuid.uuid4()}) for fact in lost[-1:]), *since])
        async with asyncio.timeout(PATIENCE_S):
            while not ids([*lost, *since]) <= await world.recorded():
                await asyncio.sleep(0.05)
    await owner.close()
    assert await world.recorded() >= ids([*before, *lost, *since])


@pytest.mark.parametrize("world", ["postgres"], indirect=True)  # a broker's own: tests/chaos/test_recovery.py
async def test_a_bus_that_came_back_empty_is_read_from_its_beginning(
    world: World, postgres_server: PostgresServer, migrated_template: str
) -> None:
    before, since = told(4), told(1)
    await world.publish(before)
    await world.project_all()
    owner = await asyncpg.connect(postgres_server.owner_url())
    fresh = TestDatabase(postgres_server, f"b{uuid.uuid4().hex}")
    await owner.execute(f"CREATE DATABASE {fresh.name} TEMPLATE {migrated_template}")
    anew = World(world.models, lambda: PostgresBus(fresh.owner_url, lease_s=2))
    await anew.set_up()
    await anew.publish(since[:1])
    await anew.project_all()
    bus, reader = anew.open_bus(), PostgresDatabase(world.models.owner_url, pool_size=1)
    await anew.publish(since[1:])
    assert not await caught_up(bus, reader, TOPICS, 0.05)  # positions of the former bus do not count for this one
    await reader.close()
    await bus.close()
    await anew.project_all()
    assert await anew.recorded() == ids([*before, *since])
    await owner.execute(f"DROP DATABASE {fresh.name} WITH (FORCE)")
    await owner.close()
