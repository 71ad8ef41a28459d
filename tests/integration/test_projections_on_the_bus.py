import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager

import pytest

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.adapters.postgres_bus.bus import PostgresBus
from backplane.ports.bus import Position
from backplane.settings import PoolSettings, Settings
from event_schemas.codec import AnyEnvelope, encode
from event_schemas.topics import CONTROL, EVENTS, PROJECTIONS, all_topics, commands, dead_letters
from tests.conftest import TestDatabase
from tests.integration.projecting import projecting, publish
from tests.unit.projections.deadline import eventually
from tests.unit.projections.doubles import WatchedReadiness
from tests.unit.projections.story import Story

SETTINGS = Settings(pools={"local": PoolSettings(backend="scripted"), "large": PoolSettings(backend="scripted")})
TOPICS = all_topics(list(SETTINGS.pools))


class Installation:
    """A database with its bus, and what services do with it."""

    def __init__(self, database: TestDatabase) -> None:
        self._database = database
        self.bus = PostgresBus(database.owner_url)
        self.reader = PostgresDatabase(database.owner_url, pool_size=2)

    def projections(self) -> AbstractAsyncContextManager[WatchedReadiness]:
        """A process of the projections, under its own role, stopped when the block ends."""
        return projecting(PostgresBus(self._database.role_url("projections"), lease_s=2), self._database, SETTINGS)

    async def publish(self, facts: Sequence[AnyEnvelope]) -> None:
        await publish(self.bus, facts)

    async def recorded(self, lines: int) -> None:
        """Wait until the record has so many lines."""
        async with asyncio.timeout(20):
            while await self.count("event_log") < lines:
                await asyncio.sleep(0.01)

    async def count(self, table: str) -> int:
        async with self.reader.system() as session:
            row = await session.one(f"SELECT count(*) AS rows FROM read_models.{table}")
        assert row is not None
        return int(row["rows"])

    async def passed(self) -> dict[tuple[str, int], Position]:
        async with self.reader.system() as session:
            rows = await session.all("SELECT * FROM read_models.positions")
        return {(row["topic"], row["partition"]): Position(row["ledger"], row["entry"]) for row in rows}

    async def close(self) -> None:
        await self.bus.close()
        await self.reader.close()


@pytest.fixture
async def installation(database: TestDatabase) -> AsyncIterator[Installation]:
    made = Installation(database)
    await made.bus.create_topics([*TOPICS, *map(dead_letters, TOPICS)], partitions=2)
    yield made
    await made.close()


async def nothing_left(installation: Installation) -> None:
    async with asyncio.timeout(20):
        while any([sum(await installation.bus.backlog(topic, PROJECTIONS)) for topic in TOPICS]):
            await asyncio.sleep(0.01)


async def test_what_is_published_on_any_topic_is_projected_and_acked(installation: Installation) -> None:
    stories = [Story() for _ in range(6)]
    facts = [fact for story in stories for fact in story.whole(attempts=2)]
    await installation.publish(facts[: len(facts) // 2])
    async with installation.projections() as readiness:
        await installation.publish(facts[len(facts) // 2 :])
        await installation.bus.publish(CONTROL, encode(stories[0].renamed("By hand")))
        await installation.bus.publish(commands("large"), encode(stories[0].prompt()))
        await installation.recorded(len(facts) + 2)
        await nothing_left(installation)
        assert await readiness.reasons() == {}
    assert await installation.count("generations") == len(stories) + 1
    passed = await installation.passed()
    for topic in TOPICS:
        for partition, head in enumerate(await installation.bus.heads(topic)):
            assert passed.get((topic, partition)) == head


async def test_poison_is_set_aside_on_the_bus_and_nothing_blocks_behind_it(installation: Installation) -> None:
    story = Story()
    facts = story.whole()
    async with installation.projections():
        await installation.publish(facts[:2])
        await installation.bus.publish(EVENTS, b"not an envelope", key=str(story.tenant_id))
        await installation.publish(facts[2:])
        await installation.recorded(len(facts))
        await nothing_left(installation)
    heads = await installation.bus.heads(dead_letters(EVENTS))
    (partition,) = (place for place, head in enumerate(heads) if head is not None)
    (message,) = await installation.bus.read(dead_letters(EVENTS), partition, after=None, limit=10)
    assert message.payload == b"not an envelope"
    assert message.properties["dead_letter_reason"].startswith("not JSON")


async def test_a_second_process_takes_over_and_nothing_is_lost_or_doubled(installation: Installation) -> None:
    stories = [Story() for _ in range(8)]
    facts = [fact for story in stories for fact in story.whole()]
    third = len(facts) // 3
    async with installation.projections():
        async with installation.projections():
            await installation.publish(facts[:third])
            await installation.recorded(third)
            await installation.publish(facts[third : 2 * third])
        await installation.publish(facts[2 * third :])
        await installation.recorded(len(facts))
        await nothing_left(installation)
    assert await installation.count("event_log") == len(facts)
    assert await installation.count("generations") == len(stories)
    assert await installation.count("token_batches") == 0


async def test_what_only_a_newer_release_can_read_is_left_to_it(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = Story()
    _, started, *rest = story.whole()
    newer = encode(started).replace(b'"generation.started.v1"', b'"generation.started.v9"')
    async with installation.projections() as readiness:
        await installation.bus.publish(EVENTS, newer, key=str(story.tenant_id))
        await installation.publish(rest)
        await eventually(lambda: any("generation.started.v9" in reason for reason in readiness.said))
        assert readiness.blocked
    assert sum(await installation.bus.backlog(EVENTS, PROJECTIONS)) == 1 + len(rest)
    assert await installation.count("event_log") == 0
