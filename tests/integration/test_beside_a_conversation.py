"""Titles and summaries, from the worker that wants them to the event that has them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

import pytest

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.settings.pools import PoolSettings
from command_api.outbox import Relay
from event_schemas import topics
from event_schemas.codec import AnyEnvelope, decode
from event_schemas.conversations import ConversationSummarised, ConversationTitled
from event_schemas.generation import GenerationCompleted, SubmitPrompt
from event_schemas.payload import Plain
from tests.conftest import TestDatabase, ValkeyServer
from tests.integration.prompts import scripted
from tests.integration.worker_world import COMMANDS, WorkerWorld
from workers.inference.scripted import ScriptedBackend
from workers.upstream import Upstream

WINDOW = 40


@pytest.fixture
async def world(database: TestDatabase, valkey_server: ValkeyServer) -> AsyncIterator[WorkerWorld]:
    async with WorkerWorld(database, valkey_server.url) as made:
        yield made


async def upstream() -> Upstream:
    backend = ScriptedBackend(slots=4, context_window=WINDOW)
    await backend.start(lambda what, share: None)
    return Upstream(backend, PoolSettings(backend="scripted", titles=True, answer_tokens=5))


async def own_prompts(world: WorkerWorld) -> list[SubmitPrompt]:
    """Those of Parley's own on the bus."""
    commands = [decode(message.payload).data for message in await world.messages(COMMANDS)]
    return [one for one in commands if isinstance(one, SubmitPrompt) and one.purpose != "answer"]


async def relayed(world: WorkerWorld, kind: Callable[[AnyEnvelope], bool]) -> AnyEnvelope:
    """The event of this kind, once it is there; what stands in the outbox is published meanwhile."""
    found: list[AnyEnvelope] = []

    async def is_there() -> bool:
        await world.relay()
        events = [decode(message.payload) for message in await world.messages(topics.EVENTS)]
        found[:] = [event for event in events if kind(event)]
        return bool(found)

    await world.until(is_there, "it was made")
    (event,) = {event.id: event for event in found}.values()
    return event


def saying(words: int, conversation: UUID | None = None, parent: UUID | None = None, **changes: Any) -> SubmitPrompt:
    prompt = scripted({"count": 5}, conversation=conversation, parent=parent, text=" ".join(["word"] * words))
    return prompt.model_copy(update={"window": "summarise"} | changes)


async def test_the_first_exchange_gets_a_title(world: WorkerWorld) -> None:
    await world.worker("a", upstream=await upstream())
    prompt = saying(3, title=Plain(plain={"title": "word word word"}))
    await world.submit(prompt)
    titled = await relayed(world, lambda event: isinstance(event.data, ConversationTitled))
    assert isinstance(titled.data, ConversationTitled)
    assert titled.data.conversation_id == prompt.conversation_id
    (own,) = await own_prompts(world)
    ended = await world.ended(own)
    assert isinstance(ended.data, GenerationCompleted)
    assert (ended.data.purpose, ended.data.generation_id) == ("title", titled.data.generation_id)
    assert titled.correlationid == (await world.ended(prompt)).correlationid, "one chain"


async def test_what_slid_out_of_the_window_gets_a_summary(world: WorkerWorld) -> None:
    await world.worker("a", upstream=await upstream())
    first = saying(15)
    second = saying(15, first.conversation_id, first.generation_id)
    await world.submit(first)
    await world.submit(second)
    ended = await world.ended(second)
    assert isinstance(ended.data, GenerationCompleted)
    assert (ended.data.left_out, ended.data.usage.input_tokens) == (0, 35)
    summarised = await relayed(world, lambda event: isinstance(event.data, ConversationSummarised))
    assert isinstance(summarised.data, ConversationSummarised)
    assert summarised.data.up_to_message_id == first.generation_id
    third = saying(15, first.conversation_id, second.generation_id)
    await world.submit(third)
    ended = await world.ended(third)
    assert isinstance(ended.data, GenerationCompleted)
    assert (ended.data.left_out, ended.data.usage.input_tokens) == (2, 35), "the projections have no summary here"


async def test_a_prompt_of_parleys_own_that_no_limit_admits_is_dropped(
    world: WorkerWorld, database: TestDatabase
) -> None:
    await world.worker("a", upstream=await upstream())
    prompt = saying(3, title=Plain(plain={"title": "word word word"}))
    await world.submit(prompt)
    await world.ended(prompt)
    asked: list[tuple[UUID, str]] = []

    async def refuse(tenant_id: UUID, own: SubmitPrompt) -> bool:
        asked.append((tenant_id, own.purpose))
        return False

    relaying = PostgresDatabase(database.role_url("relay"), pool_size=1)
    try:
        assert await Relay(relaying, world.bus, refuse).publish_some() == 1
        assert await Relay(relaying, world.bus, refuse).publish_some() == 0
    finally:
        await relaying.close()
    assert asked == [(world.tenant_id, "title")]
    assert await own_prompts(world) == []
