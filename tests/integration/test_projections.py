import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.adapters.postgres.migrate import migrate
from backplane.ports.bus import Message, Position
from backplane.ports.database import DatabaseUnavailable
from backplane.ports.identifiers import new_id
from backplane.security.canonical import canonical
from backplane.settings import PoolSettings, Settings
from event_schemas.chat import AnswerContent, ChatMessage
from event_schemas.codec import AnyEnvelope, encode
from event_schemas.generation import PromptContent
from event_schemas.payload import PersonaRef
from projections import backoff
from projections.batch import Batch
from projections.catalog import PROJECTIONS
from projections.main import keep_up
from projections.positions import SetBack
from tests.conftest import PASSWORD, ROLES, TestDatabase, start_postgres
from tests.data_keys import plain, read
from tests.unit.projections.deadline import eventually
from tests.unit.projections.doubles import MemoryBus, MemoryConsumer, WatchedReadiness
from tests.unit.projections.story import Story, folded, received

SETTINGS = Settings(pools={"local": PoolSettings(backend="scripted")})


@pytest.fixture
async def projector(database: TestDatabase) -> AsyncIterator[PostgresDatabase]:
    made = PostgresDatabase(database.role_url("projections"), pool_size=4)
    yield made
    await made.close()


@pytest.fixture
async def owner(database: TestDatabase) -> AsyncIterator[PostgresDatabase]:
    made = PostgresDatabase(database.owner_url, pool_size=4)
    yield made
    await made.close()


def messages(facts: Sequence[AnyEnvelope], *, first: int = 0, topic: str = "events") -> list[Message]:
    return [Message(topic, 0, Position(0, entry), None, encode(fact)) for entry, fact in enumerate(facts, start=first)]


async def apply(database: PostgresDatabase, facts: Sequence[AnyEnvelope]) -> int:
    return await Batch(database).apply(received(facts), messages(facts))


async def stored(database: PostgresDatabase) -> dict[str, Any]:
    """Every table's rows by key, as ``folded`` gives them."""
    tables = {}
    async with database.system() as session:
        for projection in PROJECTIONS:
            table = projection.table
            rows = await session.all(f"SELECT {', '.join(table.columns)} FROM read_models.{table.name}")
            tables[table.name] = dict(sorted((table.key_of(row), row) for row in rows))
    return tables


async def test_what_is_stored_is_what_was_folded(projector: PostgresDatabase) -> None:
    story, other = Story(), Story()
    facts = [*story.whole(attempts=2), *other.whole("failed")[:-1], other.renamed("Folds"), story.deleted()]
    assert await apply(projector, facts) == len(facts)
    assert await stored(projector) == folded(facts)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_any_order_and_any_cut_into_batches_gives_the_same_rows(
    projector: PostgresDatabase, data: st.DataObject
) -> None:
    story = Story()
    facts = [*story.whole(attempts=2), *story.whole("cancelled")[: data.draw(st.integers(1, 4))], story.renamed("F")]
    if data.draw(st.booleans()):
        facts.append(story.deleted())
    if data.draw(st.booleans()):
        facts += [story.erased(), *story.whole(keeps_content=False)]
    shuffled = data.draw(st.permutations(facts))
    doubled = shuffled + shuffled[: data.draw(st.integers(0, 3))]
    while doubled:
        size = data.draw(st.integers(1, len(doubled)))
        await apply(projector, doubled[:size])
        doubled = doubled[size:]
    mine = {
        name: {key: row for key, row in rows.items() if key[0] == story.tenant_id}
        for name, rows in (await stored(projector)).items()
    }
    assert mine == folded(facts)


async def test_the_record_is_a_chain_without_gaps_and_holds_the_very_bytes(projector: PostgresDatabase) -> None:
    story, other = Story(), Story()
    facts = [fact for pair in zip(story.whole(), other.whole(), strict=True) for fact in pair]
    await apply(projector, facts[:3])
    await apply(projector, facts[3:])
    async with projector.system() as session:
        lines = await session.all("SELECT * FROM read_models.event_log ORDER BY tenant_id, sequence")
        heads = {row["tenant_id"]: row for row in await session.all("SELECT * FROM read_models.tenant_heads")}
    for tenant in (story.tenant_id, other.tenant_id):
        mine = [line for line in lines if line["tenant_id"] == tenant]
        sent = [fact for fact in facts if fact.tenantid == tenant]
        assert [line["sequence"] for line in mine] == list(range(1, len(sent) + 1))
        assert [line["envelope"] for line in mine] == [encode(fact) for fact in sent]
        assert [line["id"] for line in mine] == [fact.id for fact in sent]
        assert [line["time"] for line in mine] == [fact.time for fact in sent]
        previous = bytes(32)
        for line in mine:
            previous = hashlib.sha256(previous + canonical(line["envelope"], committed=True)).digest()
            assert line["hash"] == previous
        assert (heads[tenant]["sequence"], heads[tenant]["hash"]) == (len(sent), previous)


async def test_a_duplicate_changes_nothing(projector: PostgresDatabase) -> None:
    facts = Story().whole()
    assert await apply(projector, [*facts[:2], *facts[:2]]) == 2
    assert await apply(projector, facts) == len(facts) - 2
    before = await stored(projector)
    assert await apply(projector, facts) == 0
    assert await stored(projector) == before
    async with projector.system() as session:
        assert await session.one("SELECT count(*) AS lines FROM read_models.event_log") == {"lines": len(facts)}


async def test_two_projectors_of_one_tenant_lose_nothing_and_double_nothing(projector: PostgresDatabase) -> None:
    story = Story()
    facts = [fact for _ in range(8) for fact in story.whole(attempts=2)]
    # Each takes half, as from two topics, and a part of what the other has, as after a hand-over.
    halves = facts[::2] + facts[1::6], facts[1::2] + facts[::6]
    await asyncio.gather(*(apply(projector, half[at : at + 9]) for half in halves for at in range(0, len(half), 9)))
    assert await stored(projector) == folded(facts)
    async with projector.system() as session:
        found = await session.one("SELECT count(*) AS lines, max(sequence) AS last FROM read_models.event_log")
    assert found == {"lines": len(facts), "last": len(facts)}


async def test_a_failure_in_the_middle_leaves_nothing_behind(
    projector: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = Story().whole()
    batch = Batch(projector)
    usage = next(projection for projection in PROJECTIONS if projection.name == "usage")
    broken = replace(usage, table=replace(usage.table, name="no_such_table"))
    monkeypatch.setattr(batch._writer, "_projections", (*PROJECTIONS[:-1], broken))
    with pytest.raises(Exception, match="no_such_table"):
        await batch.apply(received(facts), messages(facts))
    assert all(rows == {} for rows in (await stored(projector)).values())
    async with projector.system() as session:
        assert await session.all("SELECT 1 FROM read_models.event_log") == []
        assert await session.all("SELECT 1 FROM read_models.positions") == []


async def test_positions_follow_and_never_go_back(projector: PostgresDatabase) -> None:
    facts = Story().whole()
    sent = [*messages(facts[:1], topic="commands-local"), *messages(facts[1:], first=7)]
    await Batch(projector).apply(received(facts), sent)
    await Batch(projector).apply(received(facts[1:2]), messages(facts[1:2], first=7))
    async with projector.system() as session:
        rows = await session.all("SELECT * FROM read_models.positions ORDER BY topic")
    assert [(row["topic"], row["partition"], row["ledger"], row["entry"]) for row in rows] == [
        ("commands-local", 0, 0, 0),
        ("events", 0, 0, 7 + len(facts) - 2),
    ]


@pytest.mark.parametrize("missing", [("events", 0, 3), ("events", 1, 0)])
async def test_what_follows_a_gap_is_refused_and_leaves_nothing_behind(
    projector: PostgresDatabase, missing: tuple[str, int, int]
) -> None:
    facts = Story().whole()
    before, after = messages(facts[:3]), messages(facts[3:], first=4)
    await Batch(projector).apply(received(facts[:3]), before)
    known, models = {("events", 0): Position(0, 2)}, await stored(projector)
    topic, partition, entry = missing
    with pytest.raises(SetBack, match=f"{topic}, partition {partition} is read again"):
        await Batch(projector).apply(received(facts[3:]), after, known | {(topic, partition): Position(0, entry)})
    assert await stored(projector) == models
    async with projector.system() as session:
        assert await session.all("SELECT topic, partition, entry FROM read_models.positions") == [
            {"topic": "events", "partition": 0, "entry": 2}
        ]
    assert await Batch(projector).apply(received(facts[3:]), after, known) == len(facts) - 3


async def test_text_that_postgres_cannot_hold_does_not_stop_the_projections(projector: PostgresDatabase) -> None:
    story = Story()
    said = ChatMessage(role="user", content="a\0b \\u0000")
    prompt = story.prompt(said)
    content = PromptContent(messages=(said,), metadata={"k\0": "v\0"})
    old = prompt.data.model_copy(update={"content": plain(content), "generation_id": new_id()})
    answered = story.ended(prompt.data.generation_id, deltas=("x\0", "\N{GRINNING FACE}"))
    await apply(projector, [prompt, answered, story.envelope(old)])
    rows = (await stored(projector))["messages"]
    # What is sealed comes through as it was said; what older releases wrote does not quite.
    sealed, was_plain = (rows[story.tenant_id, each] for each in (prompt.data.generation_id, old.generation_id))
    assert read(sealed["prompt"], story.key, PromptContent).messages == (said,)
    assert read(sealed["answer"], story.key, AnswerContent).text == "x\0\N{GRINNING FACE}"
    stored_plain = read(was_plain["prompt"], None, PromptContent)
    assert stored_plain.messages[0].content == "a\ufffdb \\u0000"
    assert stored_plain.metadata == {"k\ufffd": "v\ufffd"}


async def test_readers_see_their_tenants_rows_and_no_others(
    database: TestDatabase, projector: PostgresDatabase
) -> None:
    story, other = Story(), Story()
    await apply(projector, [*story.whole()[:-1], story.lost(story.prompt().data.generation_id), *other.whole()])
    for one in (story, other):
        beside = [one.summarised(new_id()), one.saved(PersonaRef(persona_id=new_id(), name="clerk", version=1))]
        await apply(projector, [*beside, *one.knowledge(), *one.batch()])
    reader = PostgresDatabase(database.role_url("query_api"), pool_size=1)
    try:
        for table in (*(projection.name for projection in PROJECTIONS), "event_log", "tenant_heads"):
            async with reader.tenant(story.tenant_id) as session:
                seen = await session.all(f"SELECT DISTINCT tenant_id FROM read_models.{table}")
            assert seen == [{"tenant_id": story.tenant_id}], table
            async with reader.system() as nobody:
                assert await nobody.all(f"SELECT 1 FROM read_models.{table}") == []
    finally:
        await reader.close()


async def test_the_projections_own_role_cannot_change_what_was_recorded(
    database: TestDatabase, projector: PostgresDatabase
) -> None:
    await apply(projector, Story().whole())
    connection = await asyncpg.connect(database.role_url("projections"))
    try:
        for change in (
            "UPDATE read_models.event_log SET actor = 'operator'",
            "UPDATE read_models.checkpoints SET sequence = 1",
            "DELETE FROM read_models.checkpoints",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(change)
        # Only what was pruned, and a signature says so.
        assert await connection.execute("DELETE FROM read_models.event_log") == "DELETE 0"
    finally:
        await connection.close()


async def test_postgres_that_is_killed_and_comes_back_loses_nothing(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "LONGEST_S", 0.2)
    server = await asyncio.to_thread(start_postgres, short_folder / "projections-killed")
    try:
        await migrate(server.owner_url(), dict.fromkeys(ROLES, PASSWORD))
        database = PostgresDatabase(server.role_url("projections", "postgres"), pool_size=2)
        facts = [fact for _ in range(20) for fact in Story().whole()]
        consumer = MemoryConsumer(messages(facts[:40]))
        readiness, stop = WatchedReadiness(), asyncio.Event()
        serving = asyncio.create_task(keep_up(MemoryBus(consumer), database, SETTINGS, stop, readiness))
        await eventually(lambda: len(consumer.acked) == 40)
        server.server.kill()
        consumer.send(messages(facts[40:], first=40))
        await eventually(lambda: any("Postgres is unavailable" in reason for reason in readiness.said))
        with pytest.raises(DatabaseUnavailable):
            await database.ping()
        await asyncio.to_thread(server.server.start)
        await eventually(lambda: len(consumer.acked) == len(facts))
        await eventually(lambda: not readiness.blocked)
        stop.set()
        await serving
        assert await stored(database) == folded(facts)
        await database.close()
    finally:
        server.server.stop()
