"""Checkpoints of the record, pruning it, and what its own check then says."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from uuid import UUID

import pytest

from backplane.adapters.postgres.rebuild import open_shadow_tables
from backplane.security.chain import BEGINNING, Head, next_hash
from backplane.security.checkpoint import Checkpoint, SigningKey, Untrusted
from backplane.settings import RecordSettings
from projections import checkpoints, pruning
from projections.catalog import EVENT_LOG, PROJECTIONS
from projections.checkpoints import Due
from projections.rebuild import RecordIsPruned, rebuild
from tests.conftest import TestDatabase
from tests.integration.record_world import Record
from tests.unit.projections.story import T0


@pytest.fixture
async def record(database: TestDatabase) -> AsyncIterator[Record]:
    made = Record(database)
    await made.tell()
    yield made
    await made.close()


async def test_a_head_is_signed_after_so_many_lines_or_so_long(record: Record) -> None:
    assert await record.sign(Due(1000, 3600)) == 2  # what was never signed is due at once
    assert await record.sign(Due(1, 0)) == 0  # nothing new
    await record.tell()
    assert await record.sign(Due(11, 3600)) == 0
    assert await record.sign(Due(10, 3600)) == 2
    await record.tell()
    assert await record.sign(Due(1000, 0)) == 2
    lines = await record.lines(record.story)
    signed = await record.signed(record.story)
    assert [each.sequence for each in signed] == [10, 20, 30]
    for each in signed:
        each.check((record.key.public,))
        assert (each.tenant_id, each.head.hash) == (record.story.tenant_id, lines[each.sequence - 1]["hash"])


async def test_signing_goes_on_until_it_is_stopped(record: Record) -> None:
    stop = asyncio.Event()
    settings = RecordSettings(checkpoint_lines=1, checkpoint_s=0.05)
    signing = asyncio.create_task(checkpoints.keep_signing(record.projector, record.key, settings, stop))
    for expected in ([10], [10, 20]):
        async with asyncio.timeout(20):
            while [each.sequence for each in await record.signed(record.story)] != expected:
                await asyncio.sleep(0.02)
        await record.tell()
    stop.set()
    await signing


def test_a_checkpoint_says_the_same_after_its_way_through_json() -> None:
    key = SigningKey(secrets.token_hex(32))
    signed = key.sign(UUID(int=7), Head(3, bytes(32)))
    assert Checkpoint.parse(signed.json()) == signed
    for changed in (
        {"sequence": 4},
        {"kind": "pruned"},
        {"hash": "00" * 31 + "01"},
        {"tenant_id": str(UUID(int=8))},
        {"time": "2026-01-01T00:00:00.000000+00:00"},
        {"signature": "00" * 64},
        {"signature": "no"},
    ):
        with pytest.raises(Untrusted, match="was changed"):
            Checkpoint.parse(signed.json() | changed).check((key.public,))
    with pytest.raises(Untrusted, match="not one of those to be trusted"):
        signed.check((SigningKey(secrets.token_hex(32)).public,))
    others: list[object] = [{}, [], None, signed.json() | {"more": 1}, signed.json() | {"sequence": "3"}]
    for no_checkpoint in others:
        with pytest.raises(ValueError, match="not a checkpoint"):
            Checkpoint.parse(no_checkpoint)


async def test_a_rechained_record_is_found_by_its_checkpoint(record: Record) -> None:
    await record.sign()
    assert await record.wrong() == []
    tenant_id = record.story.tenant_id
    head = BEGINNING
    for line in await record.lines(record.story):
        envelope = line["envelope"].replace(b"model-1", b"model-2")
        head = Head(line["sequence"], next_hash(head.hash, envelope))
        await record.alter(
            "UPDATE read_models.event_log SET envelope = :envelope, hash = :hash"
            " WHERE tenant_id = :tenant_id AND sequence = :sequence",
            envelope=envelope,
            hash=head.hash,
            tenant_id=tenant_id,
            sequence=head.sequence,
        )
    await record.alter(
        "UPDATE read_models.tenant_heads SET hash = :hash WHERE tenant_id = :tenant_id",
        hash=head.hash,
        tenant_id=tenant_id,
    )
    (found,) = await record.wrong()
    assert found.key == {"tenant_id": str(tenant_id), "sequence": "10"}
    assert "chained anew" in found.what


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("UPDATE read_models.checkpoints SET hash = sha256('') WHERE tenant_id = :tenant_id", "was changed"),
        ("UPDATE read_models.checkpoints SET sequence = 9 WHERE tenant_id = :tenant_id", "was changed"),
        ("UPDATE read_models.checkpoints SET sequence = 11 WHERE tenant_id = :tenant_id", "was cut off"),
        ("DELETE FROM read_models.tenant_heads WHERE tenant_id = :tenant_id", "stands outside"),
    ],
)
async def test_a_checkpoint_that_was_changed_is_found(record: Record, change: str, what: str) -> None:
    await record.sign()
    await record.alter(change, tenant_id=record.story.tenant_id)
    (found,) = await record.wrong()
    assert found.key["tenant_id"] == str(record.story.tenant_id)
    assert what in found.what


async def test_a_pruned_record_still_verifies_from_where_it_begins(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "PAGE", 3)
    await record.sign()
    before = await record.lines(record.story)
    assert await record.prune(record.story, 7) == 2 * 7
    assert await record.lines(record.story) == before[7:]
    *_, mark = [each for each in await record.signed(record.story) if each.kind == "pruned"]
    mark.check((record.key.public,))
    assert mark.head == Head(7, before[6]["hash"])
    assert await record.wrong() == []
    await record.tell()
    assert await record.wrong() == []
    assert await pruning.prune(record.projector, record.key, T0) == 0
    # What was pruned, put back: it stands before the beginning.
    await record.alter(
        """INSERT INTO read_models.event_log
           SELECT tenant_id, 3, uuidv7(), type, subject, actor, "time", correlation_id, envelope, hash
           FROM read_models.event_log WHERE tenant_id = :tenant_id AND sequence = 8""",
        tenant_id=record.story.tenant_id,
    )
    assert [found.what for found in await record.wrong()] == ["stands outside the tenant's chain"]


async def test_all_of_a_record_may_be_pruned_and_goes_on(record: Record) -> None:
    await record.sign()
    assert await pruning.prune(record.projector, record.key, T0 + timedelta(days=1)) == 20
    assert await record.wrong() == []
    await record.tell()
    assert [line["sequence"] for line in await record.lines(record.story)] == list(range(11, 21))
    assert await record.wrong() == []


async def test_a_beginning_that_nobody_signed_is_found(record: Record) -> None:
    await record.prune(record.story, 4)
    tenant_id = record.story.tenant_id
    forged = SigningKey(secrets.token_hex(32)).sign(tenant_id, Head(4, bytes(32)), kind="pruned")
    await record.alter(
        "UPDATE read_models.checkpoints SET signature = :signature WHERE tenant_id = :tenant_id",
        signature=bytes.fromhex(forged.signature),
        tenant_id=tenant_id,
    )
    (found,) = await record.wrong()
    assert found.key["sequence"] == "4"
    assert "was changed" in found.what


async def test_whoever_walks_the_record_holds_pruning_off(record: Record) -> None:
    async with record.owner.system() as walking:
        await walking.execute("SELECT pg_advisory_xact_lock_shared(:pruning)", pruning=pruning.PRUNING)
        assert await record.prune(record.story, 5) == 0
    assert await record.prune(record.story, 5) == 10


async def test_pruning_goes_on_until_it_is_stopped(record: Record) -> None:
    stop = asyncio.Event()
    working = asyncio.create_task(pruning.keep_pruning(record.projector, record.key, 30, stop))
    async with asyncio.timeout(20):
        while await record.lines(record.other):
            await asyncio.sleep(0.02)
    stop.set()
    await working


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("model", [projection.name for projection in PROJECTIONS])
async def test_what_was_pruned_is_not_lost_from_the_read_models_by_a_rebuild(
    record: Record, model: str, check: bool
) -> None:
    await record.prune(record.story, 5)
    shadow = partial(open_shadow_tables, record.database.owner_url)
    async with record.owner.system() as session:
        before = await session.all(f"SELECT * FROM read_models.{model} ORDER BY 1, 2, 3")
    with pytest.raises(RecordIsPruned, match=r"was pruned .*record\.keep_days"):
        await rebuild(record.owner, shadow, model, check=check, progress=lambda _: None)
    async with record.owner.system() as session:
        assert await session.all(f"SELECT * FROM read_models.{model} ORDER BY 1, 2, 3") == before
    report = await rebuild(record.owner, shadow, EVENT_LOG, check=True, progress=lambda _: None)
    assert (report.lines, report.differences) == (10, ())
