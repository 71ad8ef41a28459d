"""Prompts from the handler to the bus: what an idempotency key promises, whatever changes meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from typing import Any, cast
from uuid import UUID

import asyncpg
import pytest

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.adapters.redis.budget import RedisBudget
from backplane.ports.bus import MAX_MESSAGE_BYTES, Bus
from backplane.ports.identifiers import new_id
from backplane.security.content import ContentErased, opened
from backplane.security.principal import Principal
from backplane.settings import LimitSettings, PoolSettings, Settings
from command_api.admission import Refused
from command_api.content_policy import set_content_policy
from command_api.conversations import NoSuch
from command_api.idempotency import BodyHash, KeyReused
from command_api.prompt import PromptBody
from command_api.tenancy import provision_tenant
from event_schemas.codec import decode
from event_schemas.erasure import ContentPolicy
from event_schemas.generation import PromptContent, SubmitPrompt
from event_schemas.topics import commands
from tests.conftest import TestDatabase, ValkeyServer
from tests.data_keys import DATA_KEYS
from tests.integration.limits_world import submission
from tests.integration.query_world import TestBus

TOPIC = commands("local")


def serving(*models: str) -> Settings:
    return Settings(pools={"local": PoolSettings(backend="scripted", models=models)})


class Door:
    """The handlers of one command API, its bus kept in memory."""

    def __init__(
        self,
        database: PostgresDatabase,
        tenant_id: UUID,
        bus: TestBus,
        budget: RedisBudget,
        settings: Settings,
        owner: asyncpg.Connection,
    ) -> None:
        self.bus = bus
        self.owner = owner
        self.tenant_id = tenant_id
        self._database = database
        self._principal = Principal(tenant_id, new_id(), None, "admin")
        self._budget = budget
        self._submission = submission(cast(Bus, bus), database, budget, settings)

    async def submit(self, key: str | None = None, **body: Any) -> UUID:
        submitted = await self._submission.submit(self._principal, PromptBody.model_validate(body), key, None)
        return submitted.accepted.generation_id

    def after(self, settings: Settings) -> Door:
        """The same once its operator has changed the settings."""
        return Door(self._database, self.tenant_id, self.bus, self._budget, settings, self.owner)

    def commands(self) -> list[SubmitPrompt]:
        return [cast(Any, decode(message.payload).data) for message in self.bus.topics[TOPIC]]

    async def keys(self) -> list[asyncpg.Record]:
        return await self.owner.fetch("SELECT * FROM control.data_keys ORDER BY created_at")

    async def opened(self, command: SubmitPrompt) -> PromptContent:
        """With the key that a worker would take."""
        own = None if command.keeps_content else command.generation_id
        wrapped = await self.owner.fetchval(
            "SELECT wrapped FROM control.data_keys"
            " WHERE tenant_id = $1 AND conversation_id = $2 AND generation_id IS NOT DISTINCT FROM $3",
            *(self.tenant_id, command.conversation_id, own),
        )
        key = await DATA_KEYS.unwrap(wrapped, self.tenant_id, command.conversation_id)
        return opened(command.content, key, PromptContent)

    async def project(self, command: SubmitPrompt) -> None:
        """As far as a prompt that goes on in its conversation has to know."""
        await self.owner.execute(
            "INSERT INTO read_models.conversations (id, tenant_id, renamed, last_message_id, updated_at, deleted)"
            " VALUES ($1, $2, false, $3, now(), false)",
            *(command.conversation_id, self.tenant_id, command.generation_id),
        )
        await self.owner.execute(
            "INSERT INTO read_models.generations"
            " (id, tenant_id, conversation_id, key_id, model, pool, status, attempt, created_at)"
            " VALUES ($1, $2, $3, $4, 'm', 'local', 'queued', 0, now())",
            *(command.generation_id, self.tenant_id, command.conversation_id, command.key_id),
        )
        await self.owner.execute(
            "INSERT INTO read_models.messages"
            " (tenant_id, id, conversation_id, generation_id, role, status, attempt, ordinal, erased)"
            " VALUES ($1, $2, $3, $2, 'assistant', 'queued', 0, 1, false)",
            *(self.tenant_id, command.generation_id, command.conversation_id),
        )

    async def keep(self, policy: ContentPolicy) -> None:
        await set_content_policy(self._database, self.tenant_id, policy)

    def published(self) -> list[UUID]:
        return [cast(Any, decode(message.payload).data).generation_id for message in self.bus.topics[TOPIC]]


@pytest.fixture
async def door(database: TestDatabase, valkey_server: ValkeyServer) -> AsyncIterator[Door]:
    adapter = PostgresDatabase(database.role_url("command_api"), pool_size=4)
    owner = await asyncpg.connect(database.owner_url)
    budget = RedisBudget(valkey_server.url, name=secrets.token_hex(4))
    await budget.finish(await budget.begin())
    yield Door(adapter, await provision_tenant(adapter, "acme"), TestBus(), budget, serving("m"), owner)
    await budget.close()
    await owner.close()
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


async def test_a_conversation_has_one_key_that_all_its_prompts_are_sealed_by(door: Door) -> None:
    await door.submit(input="first words")
    (first,) = door.commands()
    await door.project(first)
    await door.submit(input="more words", parent_message_id=str(first.generation_id))
    _, second = door.commands()
    assert [(await door.opened(one)).messages[0].text for one in (first, second)] == ["first words", "more words"]
    assert len(await door.keys()) == 1
    assert (first.title is None, second.title is None) == (False, True)
    assert not any(b"words" in message.payload for message in door.bus.topics[TOPIC])
    assert not any(b"words" in row["command"] for row in await door.owner.fetch("SELECT * FROM control.idempotency"))


async def test_keys_of_prompts_at_the_same_time_share_commits_and_are_all_there(door: Door) -> None:
    await asyncio.gather(*(door.submit(input=f"number {place}") for place in range(50)))
    said = {(await door.opened(command)).messages[0].text for command in door.commands()}
    assert said == {f"number {place}" for place in range(50)}


async def test_who_comes_second_with_a_key_leaves_no_data_key_behind(door: Door) -> None:
    await asyncio.gather(*(door.submit("once", input="a") for _ in range(20)))
    await door.submit("once", input="a")
    (key,) = await door.keys()
    assert {command.conversation_id for command in door.commands()} == {key["conversation_id"]}


async def test_the_stored_hash_of_a_body_is_keyed(door: Door) -> None:
    await door.submit("once", input="yes")
    stored = await door.owner.fetchval("SELECT body_hash FROM control.idempotency")
    given = PromptBody.model_validate({"input": "yes"}).as_given()
    assert stored == BodyHash("pepper")(given)
    assert stored not in (hashlib.sha256(given).digest(), BodyHash("another")(given))


async def test_where_content_is_not_kept_each_prompt_has_a_key_of_its_own(door: Door) -> None:
    await door.keep(ContentPolicy(keeps_content=False))
    await door.submit(input="one")
    (first,) = door.commands()
    await door.project(first)
    await door.submit("once", input="two", parent_message_id=str(first.generation_id))
    _, second = door.commands()
    assert [one.keeps_content for one in (first, second)] == [False, False]
    assert [(await door.opened(one)).messages[0].text for one in (first, second)] == ["one", "two"]
    assert [key["generation_id"] for key in await door.keys()] == [first.generation_id, second.generation_id]
    await door.keep(ContentPolicy())
    await door.submit(input="three", parent_message_id=str(first.generation_id))
    third = door.commands()[-1]
    assert third.keeps_content
    assert (await door.opened(third)).messages[0].text == "three"


async def test_a_conversation_that_was_erased_goes_on_under_one_new_key(door: Door) -> None:
    await door.submit(input="gone")
    (first,) = door.commands()
    await door.project(first)
    await door.owner.execute("DELETE FROM control.data_keys")
    await asyncio.gather(*(door.submit(input="on", parent_message_id=str(first.generation_id)) for _ in range(5)))
    assert len(await door.keys()) == 1
    for command in door.commands()[1:]:
        assert (await door.opened(command)).messages[0].text == "on"
    with pytest.raises(ContentErased):
        await door.opened(first)


async def test_the_largest_prompt_that_the_limits_let_in_fits_a_message(door: Door) -> None:
    text = "é" * (LimitSettings.model_fields["body_bytes"].metadata[-1].le // 2)
    await door.submit(input=text)
    (message,) = door.bus.topics[TOPIC]
    assert len(message.payload) < MAX_MESSAGE_BYTES
