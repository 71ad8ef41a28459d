import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import asyncpg
import pytest

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.adapters.postgres.rebuild import PostgresShadowTables, RebuildRunning, ShadowDiffers, open_shadow_tables
from backplane.ports.bus import Message, Position
from backplane.ports.database import DatabaseUnavailable
from backplane.ports.identifiers import new_id
from event_schemas.codec import AnyEnvelope, NewerVersion, encode
from event_schemas.payload import PersonaRef
from projections import rebuild as rebuild_module
from projections.batch import PROJECTING, Batch
from projections.catalog import MODELS, PROJECTIONS
from projections.rebuild import RecordIsNotRebuilt, Report, StillBusy, rebuild
from tests.conftest import TestDatabase
from tests.unit.projections.deadline import eventually
from tests.unit.projections.story import Story, folded, received

REBUILT = [projection.name for projection in PROJECTIONS]

ALTERED = {
    "conversations": ("""title = '{"plain": {"title": "Mine now"}}'""", "title"),
    "messages": ("""answer = '{"plain": {"text": "I never said that"}}', role = 'system'""", "role, answer"),
    "generations": ("finish_reason = 'length'", "finish_reason"),
    "token_batches": ("""content = '{"plain": {"deltas": ["forged"]}}'""", "content"),
    "usage": ("output_tokens = 0", "output_tokens"),
    "conversation_summaries": ("up_to_message_id = uuidv7()", "up_to_message_id"),
    "collections": ("embedder = 'other'", "embedder"),
    "documents": ("bytes = 7", "bytes"),
    "batches": ("total = 7", "total"),
    "batch_failures": ("number = 7", "number"),
    "persona_versions": ("name = 'nobody'", "name"),
}


class Projected:
    """A database with some stories in it, and its roles."""

    def __init__(self, database: TestDatabase) -> None:
        self.database = database
        self.owner = PostgresDatabase(database.owner_url, pool_size=4)
        self.projector = PostgresDatabase(database.role_url("projections"), pool_size=4)
        self.stories = [Story(), Story()]
        self.facts: list[AnyEnvelope] = []

    async def tell(self) -> None:
        facts = []
        for story in self.stories:
            clerk, poet = (PersonaRef(persona_id=new_id(), name=name, version=1) for name in ("clerk", "poet"))
            facts += [*story.whole(persona=clerk), story.saved(clerk), story.saved(poet), story.removed(poet)]
            facts += [*story.whole(attempts=2), *story.whole("failed"), *story.whole()[:-1], story.renamed("Folds")]
            facts += [story.summarised(new_id()), *story.knowledge()]
        gone = Story(tenant_id=self.stories[0].tenant_id)
        erased, unkept = Story(tenant_id=gone.tenant_id), Story(tenant_id=gone.tenant_id)
        facts += [*erased.whole(), erased.erased(), *unkept.whole(keeps_content=False), *unkept.whole()[:-1]]
        facts += [*Story(tenant_id=gone.tenant_id).batch(), *Story().batch(cancelled=True, deleted=True)]
        await self.add([*facts, *gone.whole(), gone.deleted()])

    async def add(self, facts: list[AnyEnvelope]) -> None:
        sent = [Message("events", 0, Position(0, len(self.facts)), None, encode(fact)) for fact in facts]
        await Batch(self.projector).apply(received(facts), sent)
        self.facts += facts

    async def rebuild(self, model: str, *, check: bool = False) -> Report:
        shadow = partial(open_shadow_tables, self.database.owner_url)
        return await rebuild(self.owner, shadow, model, check=check, progress=lambda _: None)

    async def alter(self, sql: str) -> None:
        async with self.owner.system() as session:
            assert await session.execute(sql) == 1

    async def rows(self, table: str) -> list[dict[str, object]]:
        async with self.owner.system() as session:
            return await session.all(f"SELECT * FROM read_models.{table} ORDER BY 1, 2, 3")

    async def schemas(self) -> list[str]:
        async with self.owner.system() as session:
            found = await session.all("SELECT nspname FROM pg_namespace WHERE starts_with(nspname, 'rebuild_')")
        return [row["nspname"] for row in found]

    async def close(self) -> None:
        await self.owner.close()
        await self.projector.close()


@pytest.fixture
async def projected(database: TestDatabase) -> AsyncIterator[Projected]:
    made = Projected(database)
    await made.tell()
    yield made
    await made.close()


@pytest.mark.parametrize("model", MODELS)
async def test_what_is_live_equals_what_is_rebuilt(projected: Projected, model: str) -> None:
    report = await projected.rebuild(model, check=True)
    assert report.differences == ()
    assert report.lines == len(projected.facts)
    assert not report.swapped
    assert await projected.schemas() == []


@pytest.mark.parametrize("model", REBUILT)
async def test_a_check_names_an_altered_row_and_a_rebuild_repairs_it(projected: Projected, model: str) -> None:
    before = await projected.rows(model)
    change, columns = ALTERED[model]
    await projected.alter(
        f"UPDATE read_models.{model} SET {change} WHERE ctid = (SELECT ctid FROM read_models.{model} LIMIT 1)"
    )
    altered = next(row for row in await projected.rows(model) if row not in before)
    (difference,) = (await projected.rebuild(model, check=True)).differences
    assert difference.what == f"differs in {columns}"
    assert difference.key == {column: str(altered[column]) for column in difference.key}
    assert str(difference).startswith(f"{model} (tenant_id ")
    assert (await projected.rebuild(model)).swapped
    assert await projected.rows(model) == before
    assert (await projected.rebuild(model, check=True)).differences == ()
    assert await projected.schemas() == []


@pytest.mark.parametrize("model", REBUILT)
async def test_a_check_names_rows_that_were_removed_or_put_in_between(projected: Projected, model: str) -> None:
    keys = {"persona_versions": "persona_id", "batch_failures": "batch_id"}
    key = keys.get(model, "generation_id" if model in ("token_batches", "usage", "conversation_summaries") else "id")
    await projected.alter(
        f"DELETE FROM read_models.{model} WHERE ctid = (SELECT ctid FROM read_models.{model} LIMIT 1)"
    )
    await projected.alter(
        f"""INSERT INTO read_models.{model} SELECT made.* FROM (SELECT * FROM read_models.{model} LIMIT 1) m,
            jsonb_populate_record(CAST(NULL AS read_models.{model}),
                                  to_jsonb(m) || jsonb_build_object('{key}', uuidv7())) made"""
    )
    found = (await projected.rebuild(model, check=True)).differences
    assert sorted(difference.what for difference in found) == [
        "is missing; the record says it should be there",
        "is there, but the record knows nothing of it",
    ]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (
            "envelope = convert_to(replace(convert_from(envelope, 'utf8'), 'model-1', 'model-2'), 'utf8')",
            "does not follow",
        ),
        ("hash = sha256(envelope)", "does not follow"),
        ("actor = 'operator'", "differs from its own envelope in actor"),
        ("type = 'generation.failed.v3'", "differs from its own envelope in type"),
        ("id = uuidv7()", "differs from its own envelope in id"),
        ('"time" = now()', "differs from its own envelope in time"),
        ("correlation_id = uuidv7()", "differs from its own envelope in correlation_id"),
        ("sequence = 1000", "is missing"),
    ],
)
async def test_the_first_wrong_line_of_the_record_is_named(projected: Projected, change: str, what: str) -> None:
    tenant_id = projected.stories[0].tenant_id
    await projected.alter(f"UPDATE read_models.event_log SET {change} WHERE tenant_id = '{tenant_id}' AND sequence = 2")
    (difference,) = (await projected.rebuild("event_log", check=True)).differences
    assert difference.key == {"tenant_id": str(tenant_id), "sequence": "2"}
    assert difference.what.startswith(what)


@pytest.mark.parametrize(
    ("change", "sequence", "what"),
    [
        ("DELETE FROM read_models.event_log WHERE tenant_id = '{tenant}' AND sequence = {last}", 0, "is missing"),
        ("UPDATE read_models.tenant_heads SET hash = sha256('') WHERE tenant_id = '{tenant}'", 0, "is not the line"),
        ("DELETE FROM read_models.tenant_heads WHERE tenant_id = '{tenant}'", None, "stands outside"),
        (
            "UPDATE read_models.tenant_heads SET sequence = sequence - 1 WHERE tenant_id = '{tenant}'",
            -1,
            "is not the line",
        ),
    ],
)
async def test_a_record_that_was_cut_off_is_found(
    projected: Projected, change: str, sequence: int | None, what: str
) -> None:
    tenant_id = projected.stories[1].tenant_id
    last = sum(fact.tenantid == tenant_id for fact in projected.facts)
    await projected.alter(change.format(tenant=tenant_id, last=last))
    (difference,) = (await projected.rebuild("event_log", check=True)).differences
    assert difference.key == {"tenant_id": str(tenant_id), "sequence": str(1 if sequence is None else last + sequence)}
    assert difference.what.startswith(what)


async def test_rows_equal_the_record_though_nobody_can_read_them_any_more(projected: Projected) -> None:
    (gone, kept), insert = (
        projected.stories,
        "INSERT INTO control.data_keys (tenant_id, conversation_id, wrapped) VALUES ($1, $2, $3)",
    )
    owner = await asyncpg.connect(projected.database.owner_url)
    try:
        for story in (gone, kept):
            await owner.execute(insert, story.tenant_id, story.conversation_id, b"wrapped")
        await owner.execute("DELETE FROM control.data_keys WHERE conversation_id = $1", gone.conversation_id)
    finally:
        await owner.close()
    with pytest.raises(Exception, match="permission denied for schema control"):
        async with projected.projector.system() as session:
            await session.all("SELECT 1 FROM control.data_keys")
    for model in REBUILT:
        assert (await projected.rebuild(model, check=True)).differences == ()
    before = await projected.rows("messages")
    assert (await projected.rebuild("messages")).swapped
    assert await projected.rows("messages") == before


async def test_the_record_itself_is_not_rebuilt(projected: Projected) -> None:
    with pytest.raises(RecordIsNotRebuilt):
        await projected.rebuild("event_log")
    with pytest.raises(LookupError, match="no read model 'nothing'"):
        await projected.rebuild("nothing")


async def test_lines_of_a_newer_release_are_not_passed_over(projected: Projected) -> None:
    # A type that no fold of usage wants, so that a reader who went by names alone would miss it.
    await projected.alter(
        """UPDATE read_models.event_log SET type = 'tokens.emitted.v9',
             envelope = convert_to(replace(convert_from(envelope, 'utf8'), 'emitted.v3', 'emitted.v9'), 'utf8')
           WHERE (tenant_id, sequence) = (SELECT tenant_id, sequence FROM read_models.event_log
                                          WHERE type = 'tokens.emitted.v3' LIMIT 1)"""
    )
    with pytest.raises(NewerVersion, match=r"tokens\.emitted\.v9"):
        await projected.rebuild("usage")
    assert await projected.schemas() == []


async def test_events_that_come_in_during_a_rebuild_are_not_lost(
    projected: Projected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild_module, "PAGE", 7)
    stop = asyncio.Event()

    async def project() -> int:
        told = 0
        while not stop.is_set():
            story = projected.stories[told % 2]
            facts = story.whole(attempts=1 + told % 2)
            await projected.add(facts[:3])
            await projected.add(facts[3:] if told % 3 else facts[3:-1])
            told += 1
        return told

    projecting = asyncio.create_task(project())
    for model in REBUILT:
        assert (await projected.rebuild(model)).swapped
        assert (await projected.rebuild(model, check=True)).differences == ()
    stop.set()
    assert await projecting > 5
    expected = folded(projected.facts)
    for projection in PROJECTIONS:
        assert (await projected.rebuild(projection.name, check=True)).differences == ()
        assert len(await projected.rows(projection.name)) == len(expected[projection.name])
    assert (await projected.rebuild("event_log", check=True)).differences == ()


async def test_reads_go_on_during_a_rebuild_and_see_the_new_table_after_it(projected: Projected) -> None:
    story = projected.stories[0]
    reader = PostgresDatabase(projected.database.role_url("query_api"), pool_size=1)
    reads, stop = 0, asyncio.Event()
    messages = sum(row["tenant_id"] == story.tenant_id for row in await projected.rows("messages"))

    async def read() -> None:
        nonlocal reads
        while not stop.is_set():
            async with reader.tenant(story.tenant_id) as session:
                assert len(await session.all("SELECT * FROM read_models.messages")) == messages
            reads += 1

    reading = asyncio.create_task(read())
    for _ in range(3):
        await projected.rebuild("messages")
    seen = reads
    await eventually(lambda: reads > seen)
    stop.set()
    await reading
    await reader.close()
    assert seen > 3


@pytest.mark.parametrize("model", REBUILT)
async def test_after_a_swap_roles_may_see_what_they_saw_before(projected: Projected, model: str) -> None:
    async def allowed() -> dict[str, object]:
        seen: dict[str, object] = {}
        for role in ("query_api", "command_api", "worker", "relay"):
            database = PostgresDatabase(projected.database.role_url(role), pool_size=1)
            for tenant in (projected.stories[0].tenant_id, projected.stories[1].tenant_id, None):
                session = database.system() if tenant is None else database.tenant(tenant)
                try:
                    async with session as opened:
                        seen[f"{role} {tenant}"] = sorted(
                            str(row) for row in await opened.all(f"SELECT * FROM read_models.{model}")
                        )
                except Exception as error:
                    seen[f"{role} {tenant}"] = type(error.__cause__).__name__
            await database.close()
        return seen

    before = await allowed()
    mine = f"query_api {projected.stories[0].tenant_id}"
    assert before[mine]
    assert before[mine] != before[f"query_api {projected.stories[1].tenant_id}"]
    assert before["query_api None"] == []
    assert (await projected.rebuild(model)).swapped
    assert await allowed() == before
    await projected.add(projected.stories[0].whole())
    assert (await projected.rebuild(model, check=True)).differences == ()


@pytest.mark.parametrize(
    ("change", "aspect"),
    [
        ("DROP POLICY tenant ON read_models.usage", "policies"),
        ("ALTER POLICY tenant ON read_models.usage USING (true)", "policies"),
        ("REVOKE SELECT ON read_models.usage FROM parley_query_api", "grants"),
        ("DROP INDEX read_models.usage_by_time", "indexes"),
        ("ALTER TABLE read_models.usage DISABLE ROW LEVEL SECURITY", "row-level security"),
        ("ALTER TABLE read_models.usage ADD COLUMN extra text", "columns"),
    ],
)
async def test_a_table_that_is_made_otherwise_is_not_swapped(projected: Projected, change: str, aspect: str) -> None:
    before = await projected.rows("usage")
    async with projected.owner.system() as session:
        await session.execute(change)
    with pytest.raises(ShadowDiffers, match=f"read_models.usage has other {aspect} than"):
        await projected.rebuild("usage")
    async with projected.owner.system() as session:
        await session.execute("ALTER TABLE read_models.usage DROP COLUMN IF EXISTS extra")
    assert await projected.rows("usage") == before
    assert await projected.schemas() == []


async def test_a_long_read_is_not_cut_off(projected: Projected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuild_module, "SWAP_TRIES", 1)
    before = await projected.rows("usage")
    async with projected.projector.system() as session:
        await session.all("SELECT 1 FROM read_models.usage")
        with pytest.raises(StillBusy):
            await projected.rebuild("usage")
        assert await session.all("SELECT 1 FROM read_models.usage")
    assert await projected.rows("usage") == before
    assert (await projected.rebuild("usage")).swapped


async def test_the_projector_is_held_off_while_tables_are_swapped(projected: Projected) -> None:
    before = len(projected.facts)
    async with open_shadow_tables(projected.database.owner_url, "usage") as shadow:
        async with shadow.holding(PROJECTING):
            adding = asyncio.create_task(projected.add(projected.stories[0].whole()))
            async with projected.owner.system() as session:
                waiting = "SELECT count(*) AS waiting FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                async with asyncio.timeout(10):
                    while await session.one(waiting) != {"waiting": 1}:
                        pass
            assert len(projected.facts) == before
        await adding
    assert len(projected.facts) > before


async def test_one_rebuild_at_a_time(projected: Projected) -> None:
    async with open_shadow_tables(projected.database.owner_url, "usage"):
        with pytest.raises(RebuildRunning):
            await projected.rebuild("messages")
    assert (await projected.rebuild("messages")).swapped


KILLED = """
import asyncio, sys, time
from functools import partial
from backplane.adapters.postgres.database import PostgresDatabase
from backplane.adapters.postgres.rebuild import open_shadow_tables
from projections.rebuild import rebuild

def stand_still(share):
    print("replaying", flush=True)
    time.sleep(600)

owner = sys.argv[1]
asyncio.run(rebuild(PostgresDatabase(owner, pool_size=4), partial(open_shadow_tables, owner), "messages",
                    check=False, progress=stand_still))
"""


async def test_a_rebuild_that_is_killed_leaves_the_live_tables_and_is_cleaned_up_by_the_next(
    projected: Projected,
) -> None:
    before = await projected.rows("messages")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", KILLED, projected.database.owner_url),
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert await process.stdout.readline() == b"replaying\n"
    process.send_signal(signal.SIGKILL)
    await process.wait()
    (left,) = await projected.schemas()
    assert await projected.rows("messages") == before
    await projected.add(projected.stories[0].whole())
    async with asyncio.timeout(30):
        while True:
            # The server notices that its client is gone a moment later.
            with contextlib.suppress(RebuildRunning):
                await projected.rebuild("usage")
                break
    assert left not in await projected.schemas()
    assert (await projected.rebuild("messages", check=True)).differences == ()


async def test_a_connection_that_is_lost_in_mid_rebuild_is_an_error_and_changes_nothing(projected: Projected) -> None:
    before = await projected.rows("usage")

    async def lose(shadow: PostgresShadowTables) -> None:
        admin = await asyncpg.connect(projected.database.owner_url)
        try:
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
            )
        finally:
            await admin.close()

    with pytest.raises(DatabaseUnavailable):
        async with open_shadow_tables(projected.database.owner_url, "usage") as shadow:
            await shadow.create(["usage"])
            await lose(shadow)
            await shadow.analyze("usage")
    assert await projected.rows("usage") == before
    assert (await projected.rebuild("usage")).swapped
    assert await projected.schemas() == []
