"""From an uploaded file to chunks, through crashes and deletions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from event_schemas.codec import decode
from event_schemas.knowledge import DocumentIngested, IngestionFailed, IngestionProgressed
from tests import documents
from tests.conftest import TestDatabase
from tests.integration.knowledge_world import KnowledgeWorld, knowledge_world, sentences, tenant
from workers.embedding.port import EmbedderUnavailable
from workers.knowledge.ingestion import MOST_ATTEMPTS, GaveUp


@pytest.fixture
async def world(database: TestDatabase) -> AsyncIterator[KnowledgeWorld]:
    async with knowledge_world(database) as made:
        yield made


LONG = sentences(80).encode()


class Crash(BaseException):
    """What no handler catches, as a `kill -9`."""


async def test_a_document_becomes_chunks_and_says_how_far_it_is(world: KnowledgeWorld) -> None:
    me = tenant()
    collection_id = await world.collection(me)
    document_id = await world.add(me, collection_id, documents.word("Ships stay in port.", heading="Harbour"))
    assert await world.texts(document_id) == ["# Harbour\n\nShips stay in port."]
    last = world.said.envelopes[-1].data
    assert isinstance(last, DocumentIngested)
    assert (last.kind, last.chunks) == ("docx", len(await world.texts(document_id)))
    stages = [event.data.stage for event in world.said.envelopes if isinstance(event.data, IngestionProgressed)]
    assert stages == ["reading", "embedding"]


async def test_ingesting_twice_changes_nothing(world: KnowledgeWorld) -> None:
    me = tenant()
    collection_id = await world.collection(me)
    document_id = await world.add(me, collection_id, sentences(5))
    before = await world.texts(document_id)
    ended, embedded = world.said.envelopes[-1], len(world.words.embedded)
    await world.ingestion(await world.command(document_id)).run()
    assert world.said.envelopes[-1].id == ended.id
    assert await world.texts(document_id) == before
    assert len(world.words.embedded) == embedded == 5


async def test_after_a_crash_it_goes_on_from_what_was_stored(world: KnowledgeWorld) -> None:
    me = tenant()
    collection_id = await world.collection(me)
    document_id, _ = await world.collections.add_document(
        me, collection_id, "long", sentences(80).encode(), actor="test"
    )
    calls = 0

    def crash_at_the_second() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Crash

    world.words.before_each = crash_at_the_second
    command = await world.command(document_id)
    with pytest.raises(Crash):
        await world.ingestion(command).run()
    stored = len(await world.texts(document_id))
    assert 0 < stored < 80
    assert await world.found(me, collection_id, "north1 ship1") == [], "what is half done is not found"
    assert len(world.words.embedded) == stored + 1, "the question, too"
    await world.ingestion(command).run()
    assert len(await world.texts(document_id)) == len(set(await world.texts(document_id))) == 80
    assert len(world.words.embedded) == 80 + 1, "nothing was embedded twice"
    assert isinstance(world.said.envelopes[-1].data, DocumentIngested)


async def test_one_that_always_crashes_is_given_up(world: KnowledgeWorld) -> None:
    me = tenant()
    collection_id = await world.collection(me)
    document_id, _ = await world.collections.add_document(me, collection_id, "bad", b"words", actor="test")
    command = await world.command(document_id)

    def crash() -> None:
        raise Crash

    world.words.before_each = crash
    for _ in range(MOST_ATTEMPTS):
        with pytest.raises(Crash):
            await world.ingestion(command).run()
    with pytest.raises(GaveUp):
        await world.ingestion(command).run()
    last = world.said.envelopes[-1].data
    assert isinstance(last, IngestionFailed)
    assert last.reason == "gave_up"


async def test_an_outage_of_the_embedder_counts_as_nothing(world: KnowledgeWorld) -> None:
    me = tenant()
    collection_id = await world.collection(me)
    document_id, _ = await world.collections.add_document(me, collection_id, "d", b"words", actor="test")
    command = await world.command(document_id)

    def away() -> None:
        raise EmbedderUnavailable("embedder_unreachable", "it is away")

    world.words.before_each = away
    for _ in range(MOST_ATTEMPTS + 2):
        with pytest.raises(EmbedderUnavailable):
            await world.ingestion(command).run()
    world.words.before_each = lambda: None
    await world.ingestion(command).run()
    assert isinstance(world.said.envelopes[-1].data, DocumentIngested)


@pytest.mark.parametrize(
    ("raw", "reason"), [(b"\x89PNG\r\n\x1a\n\0", "unknown_kind"), (documents.pdf(""), "no_text"), (b" ", "empty")]
)
async def test_what_cannot_be_read_fails_and_says_why(world: KnowledgeWorld, raw: bytes, reason: str) -> None:
    me = tenant()
    collection_id = await world.collection(me)
    document_id = await world.add(me, collection_id, raw)
    last = world.said.envelopes[-1].data
    assert isinstance(last, IngestionFailed)
    assert last.reason == reason
    assert await world.texts(document_id) == []


async def test_a_deleted_document_leaves_nothing_and_nothing_is_added_to_it(world: KnowledgeWorld) -> None:
    me = tenant()
    collection_id = await world.collection(me)
    document_id = await world.add(me, collection_id, sentences(3))
    command = await world.command(document_id)
    assert await world.found(me, collection_id, "north1 ship1")
    await world.collections.delete_document(me, collection_id, document_id, actor="test")
    assert await world.texts(document_id) == []
    assert await world.found(me, collection_id, "north1 ship1") == []
    keys = "SELECT count(*) FROM control.data_keys WHERE conversation_id = $1"
    assert await world.owner.fetchval(keys, document_id) == 0
    said = len(world.said.envelopes)
    await world.ingestion(command).run()
    assert await world.texts(document_id) == []
    assert len(world.said.envelopes) == said


async def test_a_document_that_is_deleted_while_it_is_embedded_stays_gone(world: KnowledgeWorld) -> None:
    me = tenant()
    collection_id = await world.collection(me)
    document_id, _ = await world.collections.add_document(
        me, collection_id, "long", sentences(80).encode(), actor="test"
    )
    ingestion, again = world.ingestion(await world.command(document_id)), asyncio.Event()
    world.words.before_each = again.set
    world.words.waits = asyncio.Event()
    running = asyncio.create_task(ingestion.run())
    await asyncio.wait_for(again.wait(), 60)
    await world.collections.delete_document(me, collection_id, document_id, actor="test")
    world.words.waits.set()
    await asyncio.wait_for(running, 60)
    assert await world.texts(document_id) == []
    assert len(world.words.embedded) < 80, "what is gone is not embedded on"
    assert not any(isinstance(event.data, DocumentIngested) for event in world.said.envelopes)


async def test_reindexing_takes_the_place_of_what_was_there_once_it_is_done(world: KnowledgeWorld) -> None:
    me = tenant()
    collection_id = await world.collection(me)
    document_id = await world.add(me, collection_id, sentences(40))
    assert await world.collections.reindex(me, collection_id, actor="test") == 1
    calls = 0

    def crash_at_the_second() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Crash

    world.words.before_each = crash_at_the_second
    again = await world.command(document_id)
    with pytest.raises(Crash):
        await world.ingestion(again).run()
    assert len(await world.found(me, collection_id, "north1 ship1", most=50)) == 40, "each chunk once"
    await world.ingestion(again).run()
    assert len(await world.texts(document_id)) == 40
    first = (await world.owner.fetch("SELECT envelope FROM control.outbox ORDER BY id"))[1]["envelope"]
    await world.ingestion(decode(first)).run()  # an older one that comes again
    assert len(await world.found(me, collection_id, "north1 ship1", most=50)) == 40


async def test_what_is_kept_is_sealed(world: KnowledgeWorld) -> None:
    me = tenant()
    collection_id = await world.collection(me)
    await world.collections.add_document(me, collection_id, "secret-name", b"secret-words " * 9, actor="test")
    for table in ("control.documents", "control.outbox", "control.collections"):
        rows = await world.owner.fetch(f"SELECT t::text AS row FROM {table} t")
        said = " ".join(row["row"] for row in rows)
        assert "secret" not in said
        assert b"secret".hex() not in said


async def test_a_collection_takes_all_with_it(world: KnowledgeWorld) -> None:
    me = tenant()
    collection_id = await world.collection(me)
    document_id = await world.add(me, collection_id, sentences(3))
    await world.collections.delete(me, collection_id, actor="test")
    assert await world.texts(document_id) == []
    assert await world.owner.fetchval("SELECT count(*) FROM control.data_keys WHERE tenant_id = $1", me) == 0
