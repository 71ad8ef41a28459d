"""Read models beside what the bus holds, on each bus: they come out equal, and every row that is not is named."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import orjson
import pytest

from backplane.adapters.postgres.rebuild import open_shadow_tables
from backplane.adapters.postgres_bus import PostgresBus
from backplane.ports.bus import Position
from backplane.ports.database import Row, Session
from backplane.security.checkpoint import SigningKey
from event_schemas.codec import NewerVersion, encode
from event_schemas.topics import EVENTS, commands
from projections import bus_replay, pruning
from projections import rebuild as rebuild_module
from projections.batch import Batch
from projections.bus_replay import NotTheSameEvents, compare_from_bus
from projections.catalog import PROJECTIONS
from projections.event_log import Received
from projections.positions import reached
from projections.rebuild import RecordIsPruned, Report, rebuild
from tests.conftest import TestDatabase
from tests.integration.bus_world import BUSES, PULSAR_TENANT, World, told
from tests.pulsar_broker import PulsarBroker
from tests.unit.projections.story import Story, folded

ALL = [projection.name for projection in PROJECTIONS]

ALTERED = {
    "conversations": ("renamed = NOT renamed", "renamed"),
    "messages": ("""answer = '{"plain": {"text": "I never said that"}}', role = 'system'""", "role, answer"),
    "generations": ("finish_reason = 'length'", "finish_reason"),
    "token_batches": ("count = count + 1", "count"),
    "usage": ("output_tokens = 0", "output_tokens"),
}


@pytest.fixture(params=BUSES)
async def world(request: pytest.FixtureRequest, database: TestDatabase) -> AsyncIterator[World]:
    async with told(request, database) as made:
        for story in made.stories:
            await made.tell(*story.whole()[:-1])
        yield made


@pytest.fixture
def shadow(database: TestDatabase) -> Any:
    return partial(open_shadow_tables, database.owner_url)


async def compare(world: World, shadow: Any, models: Sequence[str] = ALL) -> dict[str, Report]:
    reports = await compare_from_bus(world.database, world.bus, shadow, models, progress=lambda _: None)
    return {report.model: report for report in reports}


def said(reports: dict[str, Report]) -> dict[str, list[str]]:
    return {
        model: [difference.what for difference in report.differences]
        for model, report in reports.items()
        if report.differences
    }


async def test_what_is_live_equals_what_the_bus_tells(world: World, shadow: Any) -> None:
    story, other = world.stories
    beside = [Story(tenant_id=story.tenant_id, is_plain=is_plain) for is_plain in (False, True, False, False)]
    erased, erased_plain, unkept, deleted = beside
    await world.tell(*erased.whole(), erased.erased(), *erased.whole())
    await world.tell(*erased_plain.whole(), erased_plain.erased())
    await world.tell(*unkept.whole(keeps_content=False), *deleted.whole(), deleted.deleted())
    # In partitions that are read in the other order.
    await world.tell(story.renamed("once"), partition=1)
    await world.tell(story.renamed("twice"))
    failing = other.whole("failed")
    await world.tell(*failing[1:], partition=1)
    await world.tell(failing[0])
    # Twice, and in another partition too; no event at all; and what the projections have not come to.
    await world.tell(*world.recorded[:7])
    await world.tell(*world.recorded[3:5], partition=1)
    await world.bus.publish(EVENTS, b"no event", partition=0)
    await world.tell(other.handed_on(other.prompt()))
    await world.publish(*other.whole())
    once = {event.id: event for event in world.recorded}
    expected = folded(once.values())
    reports = await compare(world, shadow)
    assert said(reports) == {}
    assert list(reports) == ALL
    for model, report in reports.items():
        rows = expected[model].values()
        assert (report.rows, report.erased) == (len(rows), sum(bool(row.get("erased")) for row in rows))
        assert (report.lines, report.swapped) == (len(once), False)
    assert reports["conversations"].erased == 2
    assert reports["messages"].erased == 5
    assert await world.owner.fetchval("SELECT count(*) FROM pg_namespace WHERE starts_with(nspname, 'rebuild_')") == 0


async def test_altered_rows_are_named_whatever_the_record_says(world: World, shadow: Any) -> None:
    for model, (change, _) in ALTERED.items():
        await world.alter(
            f"UPDATE read_models.{model} SET {change} WHERE ctid = (SELECT ctid FROM read_models.{model} LIMIT 1)"
        )
    reports = await compare(world, shadow)
    assert said(reports) == {model: [f"differs in {columns}"] for model, (_, columns) in ALTERED.items()}
    for model in ALL:
        assert (await rebuild(world.database, shadow, model, check=False, progress=lambda _: None)).swapped
    assert said(await compare(world, shadow)) == {}
    # Now the record itself is another, and what is made of it follows.
    await world.alter(
        """UPDATE read_models.event_log
           SET envelope = convert_to(replace(convert_from(envelope, 'utf8'), '"stop"', '"length"'), 'utf8')
           WHERE tenant_id = $1 AND type LIKE 'generation.completed.%'""",
        world.stories[0].tenant_id,
    )
    assert (await rebuild(world.database, shadow, "generations", check=False, progress=lambda _: None)).swapped
    assert (await rebuild(world.database, shadow, "generations", check=True, progress=lambda _: None)).differences == ()
    assert said(await compare(world, shadow, ["generations"])) == {"generations": ["differs in finish_reason"]}


async def test_rows_that_were_removed_or_put_in_between_are_named(world: World, shadow: Any) -> None:
    await world.alter("DELETE FROM read_models.usage WHERE ctid = (SELECT ctid FROM read_models.usage LIMIT 1)")
    await world.owner.execute(
        """INSERT INTO read_models.usage SELECT made.* FROM (SELECT * FROM read_models.usage LIMIT 1) u,
           jsonb_populate_record(CAST(NULL AS read_models.usage),
                                 to_jsonb(u) || jsonb_build_object('generation_id', uuidv7())) made"""
    )
    (report,) = (await compare(world, shadow, ["usage"])).values()
    assert sorted(difference.what for difference in report.differences) == [
        "is missing; the bus says it should be there",
        "is there, but the bus knows nothing of it",
    ]


async def test_ciphertext_that_was_cut_off_is_apart_and_nothing_else_is(world: World, shadow: Any) -> None:
    row = await world.owner.fetchrow("SELECT id, answer FROM read_models.messages WHERE answer IS NOT NULL LIMIT 1")
    assert row is not None
    answer = orjson.loads(row["answer"])
    cut = {
        "commitment": answer["commitment"],
        "sealed_sha256": hashlib.sha256(answer["sealed"].encode()).hexdigest(),
    }

    async def stands(written: dict[str, str] | None) -> Report:
        raw = None if written is None else orjson.dumps(written).decode()
        await world.alter("UPDATE read_models.messages SET answer = $2 WHERE id = $1", row["id"], raw)
        return (await compare(world, shadow, ["messages"]))["messages"]

    assert ((await stands(answer)).erased, (await stands(answer)).differences) == (0, ())
    assert ((await stands(cut)).erased, (await stands(cut)).differences) == (1, ())
    of_record = await rebuild(world.database, shadow, "messages", check=True, progress=lambda _: None)
    assert (of_record.erased, of_record.differences) == (1, ())
    for other in (
        cut | {"sealed_sha256": "0" * 64},
        cut | {"commitment": "0" * 64},
        answer | {"sealed": answer["sealed"][:-8]},
        {"commitment": answer["commitment"]},
        None,
    ):
        (difference,) = (await stands(other)).differences
        assert (difference.key["id"], difference.what) == (str(row["id"]), "differs in answer")


async def test_a_line_that_is_not_on_the_bus_is_missed_where_it_matters(world: World, shadow: Any) -> None:
    story = world.stories[0]
    unpublished = story.renamed("never published")
    await Batch(world.projector).apply([Received(unpublished, encode(unpublished))], [])
    with pytest.raises(NotTheSameEvents) as refused:
        await compare(world, shadow)
    sequence = sum(event.tenantid == story.tenant_id for event in world.recorded) + 1
    assert str(refused.value).startswith(
        f"the bus lacks 1 lines of the record that read models come from, the first is line {sequence} of tenant"
        f" {story.tenant_id} (conversation.renamed.v2, {unpublished.time:%Y-%m-%d %H:%M} UTC)"
    )
    assert "parley record compare" in str(refused.value)
    assert said(await compare(world, shadow, ["usage", "generations"])) == {}


async def test_a_bus_that_has_dropped_the_beginning_is_refused(
    request: pytest.FixtureRequest, world: World, shadow: Any, database: TestDatabase
) -> None:
    lines = await world.owner.fetchval("SELECT count(*) FROM read_models.event_log")
    if isinstance(world.bus, PostgresBus):
        assert await world.bus.maintain(datetime.now(UTC) + timedelta(days=3))
    else:
        broker: PulsarBroker = request.getfixturevalue("shared_broker")
        for topic in (EVENTS, commands("local")):
            # The ledger that is written to is kept; a topic that is loaded again has a new one.
            partition = f"persistent/{PULSAR_TENANT}/{database.name}/{topic}-partition-0"
            broker.admin("PUT", f"{partition}/unload")
            broker.admin("DELETE", f"{partition}/truncate")
    async with asyncio.timeout(60):
        while await world.bus.read(EVENTS, 0, after=None, limit=1):
            pass
    await world.tell(*world.stories[0].whole())
    with pytest.raises(NotTheSameEvents, match=f"^the bus lacks {lines} lines of the record .* is line 1 of tenant"):
        await compare(world, shadow)


async def test_an_event_that_the_record_lacks_is_named(world: World, shadow: Any) -> None:
    gone = world.recorded[2]
    await world.tell(gone)  # a second message of it
    await world.alter("DELETE FROM read_models.event_log WHERE id = $1", gone.id)
    with pytest.raises(NotTheSameEvents) as refused:
        await compare(world, shadow)
    assert str(refused.value).startswith(
        "the record lacks the events of 2 messages that the projections have read from the bus, the first is"
        f" {gone.id} of tenant {gone.tenantid};"
    )


async def test_a_pruned_record_is_refused(world: World, shadow: Any) -> None:
    assert await pruning.prune(world.projector, SigningKey("ab" * 32), world.recorded[2].time)
    with pytest.raises(RecordIsPruned):
        await compare(world, shadow)


async def test_what_only_a_newer_release_reads_is_said(world: World, shadow: Any) -> None:
    event = world.stories[0].renamed("newer")
    newer = encode(event).replace(b"conversation.renamed.v2", b"conversation.renamed.v3")
    await world.project(await world.publish(event, raw=newer))
    with pytest.raises(NewerVersion):
        await compare(world, shadow)


async def test_events_that_come_in_while_the_bus_is_read_are_no_difference(
    world: World, shadow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_replay, "_PAGE", 5)
    monkeypatch.setattr(rebuild_module, "_CLOSE_ENOUGH", 0)
    stop = asyncio.Event()

    async def project() -> int:
        told = 0
        while not stop.is_set():
            story = world.stories[told % 2]
            await world.tell(*story.whole(), story.renamed(f"after {told}"), partition=told % 2)
            told += 1
        return told

    projecting = asyncio.create_task(project())
    lines = [(await compare(world, shadow))["messages"].lines]
    reports = await compare(world, shadow)
    assert said(reports) == {}
    lines.append(reports["messages"].lines)
    stop.set()
    assert await projecting > 1
    assert lines[0] < lines[1]


async def test_heads_are_never_ahead_of_places(world: World) -> None:
    """What is projected while both are read is passed by the places, and not yet counted by the heads."""
    story = world.stories[0]
    passed: list[Position] = []

    class Slow:
        def __init__(self, session: Session) -> None:
            self._session = session

        async def all(self, sql: str, /, **parameters: Any) -> list[Row]:
            rows = await self._session.all(sql, **parameters)
            (sent,) = await world.publish(story.renamed("in between"))
            await world.project([sent])
            passed.append(sent[1].position)
            return rows

    before = sum(event.tenantid == story.tenant_id for event in world.recorded)
    async with world.database.system() as session:
        slow: Any = Slow(session)
        found = await reached(slow, "read_models")
    assert found.heads[story.tenant_id] == before
    assert found.places[EVENTS, 0] == passed[0]
