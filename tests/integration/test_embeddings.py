"""Embeddings between the processes: who asks, who makes them, and what the limits say of it."""

from __future__ import annotations

import asyncio
import secrets
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import date
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
import redis.asyncio
from fastapi import FastAPI

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.adapters.postgres_bus.bus import PostgresBus
from backplane.ports import embeddings
from backplane.ports.budget import NANO, Standing
from backplane.ports.bus import Bus
from backplane.ports.embeddings import EmbeddingFailed, Made, NobodyEmbeds, TextsRefused
from backplane.ports.identifiers import new_id
from backplane.security.principal import Principal
from backplane.settings.knowledge import KnowledgeSettings
from backplane.settings.prices import Price, PriceTable
from backplane.web.problems import install
from command_api.admission import Refused
from command_api.allowance import Allowance
from command_api.embeddings import Embedding
from command_api.known_limits import KnownLimits
from gateway import openai
from gateway.ports import GatewayPorts
from tests.conftest import TestDatabase, ValkeyServer
from tests.embedding_server import DIMENSIONS
from tests.integration.knowledge_world import SETTINGS, Given, Words
from tests.integration.limits_world import LimitsWorld
from tests.integration.test_authenticator import LocalSignals
from workers.embedding.port import EmbedderUnavailable, EmbeddingRefused
from workers.knowledge.embedding_desk import EmbeddingDesk

WITHIN_S = 20.0


class Desks:
    """Two ingest services, and who asks them."""

    def __init__(self) -> None:
        self.signals = LocalSignals()
        self.words = Words()

    async def embed(self, *texts: str, embedder: str = "words", first: int = 0, dimensions: int | None = None) -> Made:
        return await embeddings.embed(
            self.signals, new_id(), embedder, texts, first=first, dimensions=dimensions, within_s=WITHIN_S
        )

    @asynccontextmanager
    async def open(self, database: TestDatabase) -> AsyncIterator[Desks]:
        work = PostgresDatabase(database.role_url("worker"), pool_size=4)
        made = [EmbeddingDesk(self.signals, work, Given({"words": self.words})) for _ in range(2)]
        desks = [asyncio.create_task(desk.run()) for desk in made]
        try:
            yield self
        finally:
            for desk in desks:
                desk.cancel()
            await asyncio.gather(*desks, return_exceptions=True)
            await work.close()


@pytest.fixture
async def desks(database: TestDatabase) -> AsyncIterator[Desks]:
    async with Desks().open(database) as made:
        yield made


async def test_one_of_several_desks_makes_them(desks: Desks) -> None:
    made = await desks.embed("a ship", "a harbour town")
    assert len(made.vectors) == 2
    assert (made.tokens, made.model) == (5, "words")
    assert len(struct.unpack(f"<{DIMENSIONS}f", made.vectors[0])) == DIMENSIONS
    assert desks.words.embedded == ["a ship", "a harbour town"]


async def test_a_text_beyond_the_window_is_refused_by_its_number_and_nothing_is_made(desks: Desks) -> None:
    desks.words.window = 3
    with pytest.raises(TextsRefused, match="text 33 has 4 tokens; words takes 3") as refused:
        await desks.embed("a ship", "a b c d", first=32)
    assert (refused.value.reason, refused.value.field) == ("context_length_exceeded", "input")
    assert desks.words.embedded == []


async def test_other_dimensions_are_refused(desks: Desks) -> None:
    assert (await desks.embed("a ship", dimensions=DIMENSIONS)).vectors
    with pytest.raises(TextsRefused, match=f"have {DIMENSIONS} dimensions") as refused:
        await desks.embed("a ship", dimensions=3)
    assert refused.value.field == "dimensions"


async def test_what_the_embedder_says_of_the_texts_is_told_apart_from_what_it_suffers_from(desks: Desks) -> None:
    def fail(error: Exception) -> None:
        raise error

    for error, kind in (
        (EmbeddingRefused("embedder_refused", "answered 400"), TextsRefused),
        (EmbedderUnavailable("embedder_failed", "answered 500"), EmbeddingFailed),
        (ValueError("the text was: a ship"), EmbeddingFailed),
    ):
        desks.words.before_each = lambda error=error: fail(error)  # type: ignore[misc]
        with pytest.raises(EmbeddingFailed) as failed:
            await desks.embed("a ship")
        assert type(failed.value) is kind
        assert "ship" not in str(failed.value)
    with pytest.raises(EmbeddingFailed, match="no embedder 'gone'"):
        await desks.embed("a ship", embedder="gone")


async def test_where_nobody_embeds_it_is_said() -> None:
    with pytest.raises(NobodyEmbeds, match="parley ingest"):
        await embeddings.embed(LocalSignals(), new_id(), "words", ["a ship"], first=0, dimensions=None, within_s=0.05)


PRICE = Price("words", None, date(2020, 1, 1), input=Decimal(1_000_000), output=Decimal(0))
"""A dollar a token."""


@pytest.fixture
async def world(database: TestDatabase, valkey_server: ValkeyServer, tmp_path: Path) -> AsyncIterator[LimitsWorld]:
    def open_bus(role: str) -> Bus:
        return PostgresBus(database.role_url(role), lease_s=2)

    made = LimitsWorld(database, valkey_server.url, open_bus, tmp_path, name=secrets.token_hex(4))
    await made.start()
    yield made
    await made.close()


def embedding(world: LimitsWorld, desks: Desks, *prices: Price) -> Embedding:
    settings = world.settings.model_copy(update={"knowledge": KnowledgeSettings(embedders=SETTINGS)})
    table = PriceTable(prices)
    allowance = Allowance(world.budget, KnownLimits(world.database, 0), world.database, table, settings)
    return Embedding(world.bus, desks.signals, allowance, table, settings)


def texts(count: int) -> list[str]:
    return [f"north{number} ship{number}" for number in range(count)]


async def test_they_cost_what_was_used_and_counters_that_were_lost_know_it_again(
    world: LimitsWorld, desks: Desks
) -> None:
    await world.limit(usd_per_day=Decimal(1000), requests_per_minute=100)
    embeds = embedding(world, desks, PRICE)
    async with world.projections():
        made = await embeds.embed(world.principal, "words", texts(70))
        assert (len(made.vectors), made.tokens) == (70, 140)
        use = await world.until(lambda use: not use.concurrent)
        assert (use.day_nano_usd, use.requests, use.tokens) == (140 * NANO, 1, 140)
        client = redis.asyncio.Redis.from_url(world.redis_url)
        async with aclosing(client):
            await client.delete(f"budget:{{{world.name}}}:epoch")
        use = await world.until(lambda use: use.day_nano_usd == 140 * NANO)
        assert (use.requests, use.tokens, use.concurrent) == (1, 140, 0)


async def test_what_breaks_off_is_paid_as_far_as_it_came(world: LimitsWorld, desks: Desks) -> None:
    await world.limit(usd_per_day=Decimal(1000))
    embeds = embedding(world, desks, PRICE)

    def after_the_first_piece() -> None:
        if desks.words.embedded:
            raise EmbedderUnavailable("embedder_failed", "answered 500")

    desks.words.before_each = after_the_first_piece
    async with world.projections():
        with pytest.raises(EmbeddingFailed):
            await embeds.embed(world.principal, "words", texts(70))
        use = await world.until(lambda use: not use.concurrent)
        assert use.day_nano_usd == 64 * NANO


async def test_what_was_never_made_holds_nothing(world: LimitsWorld, desks: Desks) -> None:
    await world.limit(concurrent=1)
    embeds = embedding(world, desks, PRICE)
    async with world.projections():
        for _ in range(2):
            with pytest.raises(TextsRefused):
                await embeds.embed(world.principal, "words", texts(2), dimensions=3)
        assert (await world.use()).requests == 0


async def test_without_a_price_nothing_is_bought_where_money_is_limited(world: LimitsWorld, desks: Desks) -> None:
    embeds = embedding(world, desks)
    async with world.projections():
        assert (await embeds.embed(world.principal, "words", texts(1))).vectors
        await world.limit(usd_per_day=Decimal(1000))
        with pytest.raises(Refused, match="no price") as refused:
            await embeds.embed(world.principal, "words", texts(1))
    assert refused.value.type == "unknown-price"


class OfWorld:
    """Who is let in, and what a door needs of the command API."""

    def __init__(self, world: LimitsWorld, desks: Desks) -> None:
        self.embedding = embedding(world, desks)
        self.limit_warnings = self.refusals = self
        self.refused: list[str] = []
        self._principal = world.principal

    async def principal(self, key: str) -> Principal:
        return self._principal

    def notice(self, standings: Sequence[Standing]) -> None: ...

    def count(self, principal: Principal, reason: str) -> None:
        self.refused.append(reason)


async def test_the_door_says_when_to_come_again_and_what_never_will_be(world: LimitsWorld, desks: Desks) -> None:
    app = FastAPI()
    install(app, [openai.SHAPE])
    app.include_router(openai.router)
    app.state.command = app.state.authenticator = of_world = OfWorld(world, desks)
    settings = world.settings.model_copy(update={"knowledge": KnowledgeSettings(embedders=SETTINGS)})
    app.state.gateway = GatewayPorts(settings)

    def fails_with(error: Exception) -> Callable[[], None]:
        def fail() -> None:
            raise error

        return fail

    key = {"Authorization": "Bearer any"}
    transport = httpx.ASGITransport(app)
    async with world.projections(), httpx.AsyncClient(transport=transport, base_url="http://door", headers=key) as http:
        body = {"model": "text-embedding-3-small", "input": ["a ship"]}
        desks.words.before_each = fails_with(EmbedderUnavailable("embedder_failed", "answered 500"))
        unavailable = await http.post("/v1/embeddings", json=body)
        assert (unavailable.status_code, unavailable.json()["error"]["type"]) == (503, "server_error")
        assert int(unavailable.headers["retry-after"]) >= 1
        desks.words.before_each = fails_with(EmbeddingRefused("embedder_refused", "answered 400"))
        refused = await http.post("/v1/embeddings", json=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "embedder_refused")
        assert refused.json()["error"]["param"] == "input"
        desks.words.before_each = lambda: None
        made = await http.post("/v1/embeddings", json=body)
        assert (made.status_code, made.json()["model"]) == (200, "words")
    assert of_world.refused == ["embedder-refused"]
