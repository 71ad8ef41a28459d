"""Prompts from the handler to the bus: what an idempotency key promises, whatever changes meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast
from uuid import UUID

import pytest

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.ports.bus import Bus
from backplane.ports.identifiers import new_id
from backplane.security.principal import Principal
from backplane.settings import PoolSettings, Settings
from command_api.admission import Refused
from command_api.content_keys import ContentKeys
from command_api.conversations import NoSuch
from command_api.idempotency import BodyHash, KeyReused
from command_api.prompt import PromptBody
from command_api.submission import Submission
from command_api.tenancy import provision_tenant
from event_schemas.codec import decode
from event_schemas.topics import commands
from tests.conftest import TestDatabase
from tests.integration.query_world import TestBus
from tests.integration.sealed_prompts import DATA_KEYS

TOPIC = commands("local")


def serving(*models: str) -> Settings:
    return Settings(pools={"local": PoolSettings(backend="scripted", models=models)})


class Door:
    """The handlers of one command API, its bus kept in memory."""

    def __init__(self, database: PostgresDatabase, tenant_id: UUID, bus: TestBus, settings: Settings) -> None:
        self.bus = bus
        self._database = database
        self._principal = Principal(tenant_id, new_id(), None, "admin")
        keys = ContentKeys(database, DATA_KEYS)
        self._submission = Submission(cast(Bus, bus), database, keys, BodyHash("pepper"), settings)

    async def submit(self, key: str | None = None, **body: Any) -> UUID:
        accepted = await self._submission.submit(self._principal, PromptBody.model_validate(body), key, None)
        return accepted.generation_id

    def after(self, settings: Settings) -> Door:
        """The same once its operator has changed the settings."""
        return Door(self._database, self._principal.tenant_id, self.bus, settings)

    def published(self) -> list[UUID]:
        return [cast(Any, decode(message.payload).data).generation_id for message in self.bus.topics[TOPIC]]


@pytest.fixture
async def door(database: TestDatabase) -> AsyncIterator[Door]:
    adapter = PostgresDatabase(database.role_url("command_api"), pool_size=4)
    yield Door(adapter, await provision_tenant(adapter, "acme"), TestBus(), serving("m"))
    await adapter.close()


async def test_a_prompt_without_a_key_is_published_each_time(door: Door) -> None:
    assert [await door.submit(input="a"), await door.submit(input="a")] == door.published()
    assert len(set(door.published())) == 2


async def test_a_key_stands_for_one_prompt_that_is_published_with_each_repeat(door: Door) -> None:
    first = await door.submit("once", input="a")
    assert await door.submit("once", input="a") == first
    assert door.published() == [first, first]
    assert len({message.payload for message in door.bus.topics[TOPIC]}) == 1


async def test_of_a_crowd_with_one_key_one_prompt_wins(door: Door) -> None:
    submitted = await asyncio.gather(*(door.submit("once", input="a") for _ in range(20)))
    assert len(set(submitted)) == 1
    assert set(door.published()) == set(submitted)


async def test_a_key_with_another_body_is_refused_and_nothing_is_published(door: Door) -> None:
    first = await door.submit("once", input="a")
    for other in ({"input": "b"}, {"input": "a", "model": "unknown"}, {"input": "a", "conversation_id": new_id()}):
        with pytest.raises(KeyReused):
            await door.submit("once", **other)
    assert door.published() == [first]


async def test_what_was_accepted_is_accepted_again_when_it_would_be_refused_today(door: Door) -> None:
    first = await door.submit("once", input="a", model="m")
    later = door.after(serving("another"))
    assert await later.submit("once", input="a", model="m") == first
    with pytest.raises(Refused):
        await later.submit("twice", input="a", model="m")
    assert door.published() == [first, first]


async def test_what_is_refused_takes_no_key(door: Door) -> None:
    with pytest.raises(Refused):
        await door.submit("once", input="a", model="unknown")
    with pytest.raises(NoSuch):
        await door.submit("once", input="a", parent_message_id=new_id())
    assert door.published() == []
    assert [await door.submit("once", input="a")] == door.published()
