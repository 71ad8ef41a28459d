"""Searching collections, and how well it goes on the labelled set with real embeddings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.ports import searches
from backplane.ports.searches import NobodySearches, SearchFailed
from backplane.settings.knowledge import EmbedderSettings
from benches.retrieval import Way, measured, passages, questions
from tests.conftest import TestDatabase
from tests.data_keys import DATA_KEYS
from tests.integration.knowledge_world import KnowledgeWorld, knowledge_world, sentences, tenant
from tests.integration.test_authenticator import LocalSignals
from workers.knowledge.embedders import Embedders
from workers.knowledge.search_desk import SearchDesk


@pytest.fixture
async def world(database: TestDatabase) -> AsyncIterator[KnowledgeWorld]:
    async with knowledge_world(database) as made:
        yield made


async def test_what_has_the_words_comes_first(world: KnowledgeWorld) -> None:
    me = tenant()
    collection_id = await world.collection(me)
    await world.add(me, collection_id, sentences(60))
    found = await world.found(me, collection_id, "What is north17 and grain17?")
    assert found[0].startswith("north17 ")
    assert len(found) == 3


async def test_word_forms_of_the_language_are_found(world: KnowledgeWorld) -> None:
    me = tenant()
    collection_id = await world.collection(me)
    await world.add(me, collection_id, "The ferries were sailing.\n\nNothing is here at all.")
    rankings = await world.retrieval.rankings(me, collection_id, "Does a ferry sail?")
    assert len(rankings.by_words) == 1


@pytest.mark.parametrize("question", ["", "?!", "the and of", "' OR 1=1; --", "a & | ! b <-> c:*", "\u202e\U0001f600"])
async def test_any_question_may_be_asked(world: KnowledgeWorld, question: str) -> None:
    me = tenant()
    collection_id = await world.collection(me)
    await world.add(me, collection_id, sentences(3))
    assert len(await world.found(me, collection_id, question)) == 3


async def test_nobody_finds_what_is_anothers(world: KnowledgeWorld) -> None:
    mine, theirs = tenant(), tenant()
    collection_id, other = await world.collection(mine), await world.collection(theirs)
    await world.add(mine, collection_id, sentences(2))
    await world.add(theirs, other, sentences(2))
    assert len(await world.found(mine, collection_id, "north1", most=50)) == 2
    with pytest.raises(SearchFailed, match="no collection"):
        await world.found(theirs, collection_id, "north1")


async def test_another_model_under_the_same_name_is_noticed(world: KnowledgeWorld) -> None:
    me = tenant()
    collection_id = await world.collection(me)
    await world.add(me, collection_id, sentences(2))
    world.words.identity = "words of tomorrow"
    with pytest.raises(SearchFailed, match="reindex") as raised:
        await world.found(me, collection_id, "north1")
    assert raised.value.reason == "other_embedder"


class Backwards:
    async def start(self) -> None: ...

    async def scores(self, question: str, passages: Sequence[str]) -> list[float]:
        return [float(passage.startswith("north2")) for passage in passages]

    async def close(self) -> None: ...


async def test_a_reranker_has_the_last_word(world: KnowledgeWorld) -> None:
    me = tenant()
    collection_id = await world.collection(me)
    await world.add(me, collection_id, sentences(5))
    assert (await world.found(me, collection_id, "north4 ship4"))[0].startswith("north4")
    world.reranker = Backwards()
    assert (await world.found(me, collection_id, "north4 ship4"))[0].startswith("north2")


async def test_other_processes_ask_the_desk(world: KnowledgeWorld) -> None:
    me = tenant()
    collection_id = await world.collection(me)
    await world.add(me, collection_id, sentences(5))
    signals = LocalSignals()
    desks = [asyncio.create_task(SearchDesk(signals, world.work, world.retrieval).run()) for _ in range(2)]
    try:
        found = await searches.search(signals, me, collection_id, "north3 ship3", most=2, within_s=20)
        assert [one.chunk_id for one in found] == [
            one.chunk_id for one in await world.retrieval.search(me, collection_id, "north3 ship3", 2)
        ]
        with pytest.raises(SearchFailed, match="no collection"):
            await searches.search(signals, tenant(), collection_id, "north3", most=2, within_s=20)
    finally:
        for desk in desks:
            desk.cancel()
        await asyncio.gather(*desks, return_exceptions=True)


async def test_where_nobody_searches_it_is_said() -> None:
    with pytest.raises(NobodySearches, match="parley ingest"):
        await searches.search(LocalSignals(), tenant(), tenant(), "north3", most=2, within_s=0.05)


def test_the_labelled_set_is_whole() -> None:
    assert len(passages()) >= 60
    assert len(questions()) >= 40
    assert len({question.kind for question in questions()}) >= 4
    assert all(question.answered_by and question.answered_by <= passages().keys() for question in questions())


async def test_hybrid_is_not_worse_than_the_better_of_its_two_halves(database: TestDatabase) -> None:
    commands = PostgresDatabase(database.role_url("command_api"), pool_size=2)
    work = PostgresDatabase(database.role_url("worker"), pool_size=2)
    embedders = Embedders({"minilm": EmbedderSettings()}, None)
    try:
        ways, _ = await measured(commands, work, DATA_KEYS, embedders)
    finally:
        await embedders.close()
        await commands.close()
        await work.close()
    quality: dict[str, Way] = {way.name: way for way in ways}
    vector, text, hybrid = (quality[name].overall for name in ("vector", "text", "hybrid"))
    assert hybrid.recall >= max(vector.recall, text.recall), quality
    assert hybrid.mrr >= max(vector.mrr, text.mrr), quality
    assert vector.recall > 0.7, "the embedder understands what is asked"
