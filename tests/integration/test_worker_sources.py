"""Workers with sources: a real worker, a real server of the web, and a model that says what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.ports.token_stream import Kind
from backplane.settings import SourceSettings
from backplane.settings.pools import PoolSettings
from event_schemas.generation import GenerationCancelled, GenerationCompleted, GenerationFailed, SubmitPrompt
from event_schemas.sources import ChoiceWish, SiteWish, TextWish, UrlWish
from tests.conftest import TestDatabase, ValkeyServer
from tests.contract.page_cache.memory import MemoryPageCache
from tests.integration.prompts import scripted
from tests.integration.worker_world import WorkerWorld
from tests.web import Web, response, web
from workers.sources.making import open_sources
from workers.sources.readers import TextReader
from workers.sources.resolving import Sources

ECHO = {"echo": True}


@dataclass
class Scene:
    world: WorkerWorld
    server: Web

    async def site(self, name: str, *paths: str) -> None:
        await self.world.owner.execute(
            "INSERT INTO control.sites (site_id, tenant_id, name, domain, urls, every_s)"
            " VALUES (gen_random_uuid(), $1, $2, $2 || '.example', $3, 900)",
            *(self.world.tenant_id, name, [self.server.url(path) for path in paths]),
        )

    async def submitted(self, prompt: SubmitPrompt) -> SubmitPrompt:
        await self.world.submit(prompt)
        return prompt


@asynccontextmanager
async def made(database: TestDatabase, deadline_s: float = 10.0) -> AsyncIterator[Sources]:
    settings = SourceSettings(allow_private=True, deadline_s=deadline_s)
    asks = PostgresDatabase(database.role_url("worker"), pool_size=2)
    try:
        async with open_sources(
            settings, PoolSettings(backend="scripted"), asks, MemoryPageCache(), TextReader()
        ) as sources:
            yield sources
    finally:
        await asks.close()


@pytest.fixture
async def scene(database: TestDatabase, valkey_server: ValkeyServer) -> AsyncIterator[Scene]:
    async with made(database) as sources, web() as server, WorkerWorld(database, valkey_server.url) as world:
        await world.owner.execute(
            "INSERT INTO control.fetching VALUES ($1, $2)",
            world.tenant_id,
            '{"enabled": true, "deny": ["denied.example"], "robots": false}',
        )
        server.has = {
            "/tea": response(200, "Tea is green.", type="text/plain"),
            "/milk": response(200, "Milk is white.", type="text/plain"),
        }
        await world.worker("a", sources=sources)
        yield Scene(world, server)


async def test_what_was_found_stands_before_the_question_and_in_the_answers_record(scene: Scene) -> None:
    await scene.site("drinks", "/tea", "/milk", "/gone")
    wishes = (UrlWish(url=scene.server.url("/tea")), TextWish(text="By hand."), SiteWish(site="Drinks.Example"))
    prompt = await scene.submitted(scripted(ECHO, text="Which colour?", sources=wishes))
    ended = await scene.world.ended(prompt)
    assert isinstance(ended.data, GenerationCompleted)
    answer = scene.world.answer(ended)
    assert answer.text.endswith("Which colour?")
    for said in ("Tea is green.", "By hand.", "Milk is white.", f"[1] {scene.server.url('/tea')}"):
        assert said in answer.text
    assert [(one.number, one.kind, one.site) for one in answer.sources] == [
        (1, "url", None),
        (2, "text", None),
        (3, "site", "drinks"),
        (4, "site", "drinks"),
    ]
    assert [one.url for one in answer.sources] == [
        scene.server.url("/tea"),
        None,
        scene.server.url("/tea"),
        scene.server.url("/milk"),
    ]
    assert answer.sources[0].fetched_at is not None
    assert ended.data.usage.input_tokens == len(answer.text.split())

    async def shown() -> bool:
        async with scene.world.reader() as reader:
            last = (await reader.backlog(scene.world.tenant_id, prompt.generation_id))[-1]
        return last.kind is Kind.COMPLETED and [one["number"] for one in last.detail["sources"]] == [1, 2, 3, 4]

    await scene.world.until(shown, "the stream's end tells the sources")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/gone?token=secret", "source 1 (127.0.0.1) is not to be had: 127.0.0.1 answered 404"),
        ("@", "source 1 (denied.example) is not to be had: denied.example is denied"),
    ],
)
async def test_what_cannot_be_had_fails_the_generation_and_costs_nothing(path: str, why: str, scene: Scene) -> None:
    url = "https://denied.example/" if path == "@" else scene.server.url(path)
    prompt = await scene.submitted(scripted(ECHO, sources=(UrlWish(url=url),)))
    ended = await scene.world.ended(prompt)
    assert isinstance(ended.data, GenerationFailed)
    assert (ended.data.reason, ended.data.detail) == ("source_unavailable", why)
    assert (ended.data.usage.input_tokens, ended.data.usage.output_tokens, ended.data.served) == (0, 0, None)
    again = await scene.submitted(scripted(ECHO, text="On?", sources=(UrlWish(url=url, optional=True),)))
    answer = scene.world.answer(await scene.world.ended(again))
    assert (answer.text, answer.sources, answer.source_notes) == ("On?", (), (why,))


async def test_a_cancel_ends_it_while_a_page_still_comes(scene: Scene) -> None:
    async def hangs(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    scene.server.has["/slow"] = hangs
    prompt = await scene.submitted(scripted(ECHO, sources=(UrlWish(url=scene.server.url("/slow")),)))

    async def asked() -> bool:
        return "/slow" in scene.server.paths

    await scene.world.until(asked, "the page was asked for")
    await scene.world.cancel(prompt)
    ended = await scene.world.ended(prompt)
    assert isinstance(ended.data, GenerationCancelled)
    assert ended.data.usage.input_tokens == 0


async def test_a_page_that_does_not_come_in_time_is_left(
    database: TestDatabase, valkey_server: ValkeyServer, scene: Scene
) -> None:
    async def hangs(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    scene.server.has["/slow"] = hangs
    wishes = (UrlWish(url=scene.server.url("/slow")),)
    async with made(database, deadline_s=0.2) as hasty, WorkerWorld(database, valkey_server.url) as world:
        await world.owner.execute("INSERT INTO control.fetching VALUES ($1, '{\"enabled\": true}')", world.tenant_id)
        await scene.world._workers[0].drain()
        await world.worker("hasty", sources=hasty)
        prompt = scripted(ECHO, sources=wishes)
        await world.submit(prompt)
        ended = await world.ended(prompt)
    assert isinstance(ended.data, GenerationFailed)
    assert ended.data.detail.endswith("it could not be had within 0.2 s")


async def test_the_model_picks_and_what_that_took_is_counted(scene: Scene) -> None:
    await scene.site("tea", "/tea")
    await scene.site("milk", "/milk")
    choice = ChoiceWish(among=(SiteWish(site="milk"), SiteWish(site="tea")))
    said = {"tokens": ['{"source_1": "tea", ', '"source_2": ""}']}
    plain = await scene.submitted(scripted(said, text="Which colour?"))
    picking = await scene.submitted(scripted(said, text="Which colour?", sources=(choice,)))
    ended, alone = await scene.world.ended(picking), await scene.world.ended(plain)
    assert isinstance(ended.data, GenerationCompleted)
    assert isinstance(alone.data, GenerationCompleted)
    answer = scene.world.answer(ended)
    assert [(one.site, one.chosen) for one in answer.sources] == [("tea", True)]
    assert answer.text == '{"source_1": "tea", "source_2": ""}'
    assert ended.data.usage.output_tokens == 4
    assert ended.data.usage.input_tokens > 2 * alone.data.usage.input_tokens
    assert answer.source_notes == ()


async def test_a_worker_without_readers_says_so(scene: Scene) -> None:
    await scene.world._workers[0].drain()
    await scene.world.worker("bare")
    prompt = await scene.submitted(scripted(ECHO, sources=(TextWish(text="a"),)))
    ended = await scene.world.ended(prompt)
    assert isinstance(ended.data, GenerationFailed)
    assert ended.data.detail == "this worker reads no sources"
