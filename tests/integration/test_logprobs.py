"""Logprobs from a provider to the stream and the record, and what an answer with too many of them comes to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from backplane.ports.bus import MAX_MESSAGE_BYTES
from backplane.settings.pools import PoolSettings
from event_schemas.codec import encode
from event_schemas.generation import GenerationCompleted, Parameters, SubmitPrompt, TokensEmitted
from tests.conftest import TestDatabase, ValkeyServer
from tests.integration.prompts import scripted
from tests.integration.worker_world import WorkerWorld
from tests.providers.model import Model
from tests.providers.script import Script
from tests.providers.server import Providers, providers
from workers.inference.openai_chat import OpenAIBackend
from workers.upstream import Upstream

NO_KEY = "none"
MODEL = scripted().model


@pytest.fixture
async def world(database: TestDatabase, valkey_server: ValkeyServer) -> AsyncIterator[WorkerWorld]:
    async with WorkerWorld(database, valkey_server.url) as made:
        yield made


def asking(parameters: Parameters) -> SubmitPrompt:
    return scripted().model_copy(update={"parameters": parameters})


@asynccontextmanager
async def asking_a_provider(world: WorkerWorld, **options: Any) -> AsyncIterator[Providers]:
    """A worker whose backend asks a server that knows the model of every prompt."""
    async with providers() as server:
        server.add_key(NO_KEY)
        server.models[MODEL] = Model(context=1_000_000)
        backend = OpenAIBackend(server.openai_url, slots=4, **options)
        await backend.start(lambda doing, share: None)
        try:
            settings = PoolSettings(backend="openai", models=(MODEL,), base_url=server.openai_url)
            worker = await world.worker("a", upstream=Upstream(backend, settings))
            yield server
            await worker.drain()
        finally:
            await backend.close()


async def test_they_come_with_every_token_in_frames_events_and_the_end(world: WorkerWorld) -> None:
    async with asking_a_provider(world) as server:
        server.queue(Script(words=24, token_s=0.01))
        prompt = asking(Parameters(logprobs=True, top_logprobs=2))
        await world.submit(prompt)
        ended = await world.ended(prompt)
        assert isinstance(ended.data, GenerationCompleted)
        answer = world.answer(ended)
        pieces = answer.pieces
        tokens = [token for said in answer.logprobs for token in said]
        assert len(pieces) == len(tokens) == 24
        assert "".join(token["token"] for token in tokens) == answer.text
        assert {len(token["top_logprobs"]) for token in tokens} == {2}
        events = [event.data for event in await world.events(prompt)]
        emitted = sorted(
            (event for event in events if isinstance(event, TokensEmitted)), key=lambda event: event.first_seq
        )
        said = [piece for event in emitted for piece in world.sealed.tokens(event).pieces]
        assert said == pieces[: len(said)]
        assert said
        async with world.reader() as reader:
            frames = await reader.backlog(world.tenant_id, prompt.generation_id)
        assert [piece for frame in frames for piece in frame.deltas] == pieces


async def test_an_answer_with_more_than_a_message_takes_ends_by_its_length(world: WorkerWorld) -> None:
    async with asking_a_provider(world) as server:
        server.queue(Script(text=" ".join(["x" * 2000] * 1500)))
        prompt = asking(Parameters(logprobs=True))
        await world.submit(prompt)
        ended = await world.ended(prompt)
        assert isinstance(ended.data, GenerationCompleted)
        assert (ended.data.finish_reason, ended.data.usage.source) == ("length", "estimated")
        answer = world.answer(ended)
        assert 500 < len(answer.logprobs) < 1500
        assert len(answer.text) < MAX_MESSAGE_BYTES / 2
        assert len(encode(ended)) < MAX_MESSAGE_BYTES


async def test_where_the_server_tells_no_usage_it_is_estimated(world: WorkerWorld) -> None:
    async with asking_a_provider(world, usage=False) as server:
        prompt = asking(Parameters())
        await world.submit(prompt)
        ended = await world.ended(prompt)
        assert isinstance(ended.data, GenerationCompleted)
        assert (ended.data.usage.output_tokens, ended.data.usage.source) == (16, "estimated")
        (entry,) = server.ledger[NO_KEY].asked
        assert "stream_options" not in entry.body
