"""What auditors ask over HTTP, from a real log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import orjson
import pytest

from backplane.ports.identifiers import new_id
from backplane.security import proof as offline
from backplane.security.checkpoint import Checkpoint
from event_schemas.codec import decode
from event_schemas.control_plane import AuditRead
from event_schemas.topics import EVENTS
from query_api import audit_export
from query_api.audit_export import AuditExport, PrunedMeanwhile
from tests.conftest import TestDatabase, ValkeyServer
from tests.integration.query_world import Caller, World, serving
from tests.integration.record_world import Record


@pytest.fixture
async def record(database: TestDatabase) -> AsyncIterator[Record]:
    made = Record(database)
    await made.tell()
    await made.sign()
    yield made
    await made.close()


@pytest.fixture
async def world(database: TestDatabase, valkey_server: ValkeyServer) -> AsyncIterator[World]:
    async with serving(database, valkey_server.url) as made:
        yield made


@pytest.fixture
async def auditor(world: World, record: Record) -> Caller:
    return await world.caller(record.story.tenant_id, "auditor")


PATHS = ("verify", "checkpoints", "export", f"trace/{new_id()}")


async def test_who_may_ask(world: World, record: Record) -> None:
    for role, allowed in (("auditor", True), ("admin", True), ("member", False)):
        caller = await world.caller(record.story.tenant_id, role)  # type: ignore[arg-type]
        for path in PATHS:
            assert ((await caller.get(f"/v1/audit/{path}")).status_code != 403) is allowed, path


async def test_the_live_log_verifies_in_parts(record: Record, auditor: Caller) -> None:
    whole = (await auditor.get("/v1/audit/verify")).json()
    lines = await record.lines(record.story)
    assert whole == {
        "verified": True,
        "first": 1,
        "last": 10,
        "hash": lines[-1]["hash"].hex(),
        "newest": 10,
        "checkpoints": 1,
        "keys": [record.key.public],
        "fault": None,
        "next_cursor": None,
    }
    parts = [(await auditor.get("/v1/audit/verify", limit=4)).json()]
    while (cursor := parts[-1]["next_cursor"]) is not None:
        parts.append((await auditor.get("/v1/audit/verify", limit=4, cursor=cursor)).json())
    assert [(part["first"], part["last"], part["checkpoints"]) for part in parts] == [(1, 4, 0), (5, 8, 0), (9, 10, 1)]
    assert all(part["verified"] for part in parts)
    # What a part ended with cannot be exchanged before the next one.
    forged = f"4-{'00' * 32}"
    assert (await auditor.get("/v1/audit/verify", cursor=forged)).json()["fault"]["sequence"] == 5


@pytest.mark.parametrize(
    ("change", "sequence", "what"),
    [
        ("UPDATE read_models.event_log SET hash = sha256('') WHERE tenant_id = :t AND sequence = 3", 3, "not follow"),
        ("DELETE FROM read_models.event_log WHERE tenant_id = :t AND sequence = 3", 3, "is missing"),
        ("DELETE FROM read_models.event_log WHERE tenant_id = :t AND sequence = 10", 10, "is missing"),
        ("UPDATE read_models.tenant_heads SET sequence = 9 WHERE tenant_id = :t", 9, "the log's head names"),
        ("UPDATE read_models.tenant_heads SET hash = sha256('') WHERE tenant_id = :t", 10, "the log's head names"),
        ("UPDATE read_models.checkpoints SET hash = sha256('') WHERE tenant_id = :t", 10, "was changed"),
        ("UPDATE read_models.checkpoints SET sequence = 12 WHERE tenant_id = :t", 11, "a checkpoint signs line 12"),
    ],
)
async def test_the_first_wrong_line_is_named(
    record: Record, auditor: Caller, change: str, sequence: int, what: str
) -> None:
    await record.alter(change, t=record.story.tenant_id)
    answer = (await auditor.get("/v1/audit/verify")).json()
    assert not answer["verified"]
    assert answer["fault"]["sequence"] == sequence
    assert what in answer["fault"]["what"]
    assert answer["next_cursor"] is None


async def test_a_pruned_log_verifies_from_where_it_begins(record: Record, auditor: Caller) -> None:
    cursor = (await auditor.get("/v1/audit/verify", limit=4)).json()["next_cursor"]
    await record.prune(record.story, 6)
    answer = (await auditor.get("/v1/audit/verify")).json()
    assert (answer["verified"], answer["first"], answer["last"]) == (True, 7, 10)
    later = (await auditor.get("/v1/audit/verify", cursor=cursor)).json()
    assert (later["verified"], later["first"], later["last"]) == (True, 7, 10)


async def test_checkpoints_are_listed_with_their_public_key(record: Record, auditor: Caller) -> None:
    await record.tell()
    await record.sign()
    first = (await auditor.get("/v1/audit/checkpoints", limit=1)).json()
    second = (await auditor.get("/v1/audit/checkpoints", limit=1, cursor=first["next_cursor"])).json()
    assert second["next_cursor"] is None
    found = [Checkpoint.parse(one) for page in (first, second) for one in page["checkpoints"]]
    assert found == await record.signed(record.story)
    for one in found:
        one.check((record.key.public,))
    assert first["pruned"] is None
    await record.prune(record.story, 6)
    pruned = Checkpoint.parse((await auditor.get("/v1/audit/checkpoints")).json()["pruned"])
    pruned.check((record.key.public,))
    assert pruned.sequence == 6


async def test_an_export_verifies_with_the_public_key_alone(record: Record, auditor: Caller) -> None:
    await record.add(record.story.whole())  # not signed yet, so not exported
    published = await record.signed(record.story)
    for first in (1, 7):
        response = await auditor.get("/v1/audit/export")
        assert response.headers["content-type"].startswith("application/x-ndjson")
        found = offline.verify(response.content.splitlines(keepends=True), {record.key.public}, published)
        assert (found.first, found.header.to, found.published) == (first, 10, 1)
        await record.prune(record.story, 6)


async def test_nothing_signed_is_nothing_to_export(world: World) -> None:
    stranger = await world.caller(new_id(), "admin")
    response = await stranger.get("/v1/audit/export")
    assert response.status_code == 503
    assert "no line of this log is signed yet" in response.json()["detail"]


async def test_an_export_that_pruning_overtakes_breaks_off(
    world: World, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_export, "_PAGE", 2)
    export = await AuditExport.begin(world.ports.database, record.story.tenant_id)
    written = []
    with pytest.raises(PrunedMeanwhile, match="lines up to 6 were pruned"):
        async for reached, lines in export.lines():
            written += lines.splitlines(keepends=True)
            if reached == 2:
                await record.prune(record.story, 6)
    with pytest.raises(offline.Tampered, match="was cut off: it ends after line 2 of 10"):
        offline.verify(written, {record.key.public})


async def test_a_request_is_followed_through_cause_and_effect(record: Record, auditor: Caller) -> None:
    story = record.story
    command, *effects = story.whole()
    said = {"correlationid": command.id, "causationid": command.id}
    await record.add([effect.model_copy(update=said) for effect in effects])
    await record.add([command])  # its topic was slower
    answer = (await auditor.get(f"/v1/audit/trace/{command.id}")).json()
    steps = answer["steps"]
    assert answer["correlation_id"] == str(command.id)
    assert [(step["type"], step["lines"], step["depth"], step["ms"]) for step in steps] == [
        ("prompt.submit.v3", 1, 0, 0),
        ("generation.started.v1", 1, 1, 1000),
        ("tokens.emitted.v3", 2, 1, 2000),
        ("generation.completed.v3", 1, 1, 4000),
    ]
    assert steps[0]["actor"] == f"key:{story.key_id}"
    text = orjson.dumps(answer).decode()
    for written in ("What is a fold", "A fold", "ticket"):
        assert written not in text
    assert (await auditor.get(f"/v1/audit/trace/{new_id()}")).status_code == 404


async def test_nobody_sees_anothers(world: World, record: Record) -> None:
    stranger = await world.caller(new_id(), "admin")
    line = (await record.lines(record.story))[0]
    assert (await stranger.get(f"/v1/audit/trace/{line['correlation_id']}")).status_code == 404
    assert (await stranger.get("/v1/audit/checkpoints")).json()["checkpoints"] == []
    assert (await stranger.get("/v1/audit/verify")).json()["last"] == 0


async def test_all_of_it_is_on_record(world: World, auditor: Caller) -> None:
    trace = new_id()
    for path in ("verify", "checkpoints", "export", f"trace/{trace}"):
        await auditor.get(f"/v1/audit/{path}")
    read = [decode(message.payload) for message in world.bus.topics[EVENTS]]
    assert all(one.actor == f"user:{auditor.user_id}" and one.tenantid == auditor.tenant_id for one in read)
    facts = [one.data for one in read if isinstance(one.data, AuditRead)]
    assert [(fact.what, fact.exported, fact.filters) for fact in facts] == [
        ("proof", False, {}),
        ("checkpoints", False, {}),
        ("events", True, {}),
        ("trace", False, {"correlation_id": str(trace)}),
    ]
    world.bus.away = True
    for path in PATHS:
        assert (await auditor.get(f"/v1/audit/{path}")).status_code == 503


async def test_the_log_is_filtered_by_everything_that_an_auditor_asks_for(record: Record, auditor: Caller) -> None:
    lines = await record.lines(record.story)
    fourth = lines[3]
    later = (fourth["time"] + timedelta(microseconds=1)).isoformat()
    for filters, wanted in (
        ({"actor": fourth["actor"]}, lines),
        ({"actor": "operator"}, []),
        ({"type": fourth["type"]}, [line for line in lines if line["type"] == fourth["type"]]),
        ({"subject": fourth["subject"]}, lines[:5]),
        ({"since": fourth["time"].isoformat()}, lines[3:]),
        ({"since": later}, lines[4:]),
        ({"until": fourth["time"].isoformat()}, lines[:3]),
        ({"until": later}, lines[:4]),
        ({"correlation_id": str(fourth["correlation_id"])}, [fourth]),
        ({"type": fourth["type"], "subject": fourth["subject"], "until": later}, lines[2:4]),
    ):
        page = (await auditor.get("/v1/events", **filters)).json()["events"]
        assert [one["sequence"] for one in page] == [line["sequence"] for line in wanted], filters


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("verify?cursor=7", "query.cursor"),
        (f"verify?cursor=99999999999999999999-{'00' * 32}", "query.cursor"),
        ("verify?limit=0", "query.limit"),
        ("checkpoints?cursor=-1", "query.cursor"),
        ("trace/nothing", "path.correlation_id"),
    ],
)
async def test_bad_input_names_the_field(auditor: Caller, path: str, field: str) -> None:
    response = await auditor.get(f"/v1/audit/{path}")
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]
