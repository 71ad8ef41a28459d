"""Erasing at the command API: keys are deleted, events say so, and of what runs there is a cancel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.ports.identifiers import new_id
from backplane.security.principal import Principal
from command_api.content_policy import content_policy, set_content_policy
from command_api.conversations import NoSuch, delete
from command_api.erasure import erase_conversation, erase_due, erase_user, recent_in
from command_api.tenancy import invite_user, provision_tenant
from event_schemas.codec import decode
from event_schemas.control_plane import ConversationDeleted
from event_schemas.erasure import ContentErased, ContentPolicy, ContentPolicySet, UserErased
from event_schemas.payload import Payload
from tests.conftest import TestDatabase

NOW = datetime(2026, 6, 1, tzinfo=UTC)


class World:
    def __init__(self, database: PostgresDatabase, owner: asyncpg.Connection, tenant_id: UUID) -> None:
        self.database = database
        self.owner = owner
        self.tenant_id = tenant_id
        self.admin = self.caller("admin")

    def caller(self, role: str, user_id: UUID | None = None) -> Principal:
        return Principal(self.tenant_id, new_id(), user_id, role)  # type: ignore[arg-type]

    async def conversation(
        self, user_id: UUID | None = None, *, tenant_id: UUID | None = None, quiet: timedelta = timedelta()
    ) -> UUID:
        """With a key, and with a generation that runs."""
        made, tenant = new_id(), tenant_id or self.tenant_id
        moment = NOW - quiet
        await self.owner.execute(
            "INSERT INTO read_models.conversations (id, tenant_id, user_id, renamed, updated_at, deleted)"
            " VALUES ($1, $2, $3, false, $4, false)",
            *(made, tenant, user_id, moment),
        )
        await self.owner.execute(
            "INSERT INTO control.data_keys (tenant_id, conversation_id, user_id, wrapped, created_at)"
            " VALUES ($1, $2, $3, 'x', $4)",
            *(tenant, made, user_id, moment),
        )
        await self.owner.execute(
            "INSERT INTO read_models.generations (id, tenant_id, conversation_id, user_id, key_id, model, pool, status,"
            " attempt) VALUES ($1, $2, $3, $4, $5, 'm', 'p', 'running', 1)",
            *(new_id(), tenant, made, user_id, new_id()),
        )
        return made

    async def keyed(self) -> set[UUID]:
        rows = await self.owner.fetch("SELECT conversation_id FROM control.data_keys")
        return {row["conversation_id"] for row in rows}

    async def said(self) -> list[Payload]:
        """What the outbox has besides how this world came to be."""
        rows = await self.owner.fetch("SELECT envelope FROM control.outbox ORDER BY id")
        said = [decode(row["envelope"]).data for row in rows]
        return [
            one for one in said if isinstance(one, ContentErased | UserErased | ContentPolicySet | ConversationDeleted)
        ]


@pytest.fixture
async def world(database: TestDatabase) -> AsyncIterator[World]:
    adapter = PostgresDatabase(database.role_url("command_api"), pool_size=4)
    owner = await asyncpg.connect(database.owner_url)
    yield World(adapter, owner, await provision_tenant(adapter, "acme"))
    await owner.close()
    await adapter.close()


async def test_erasing_a_conversation_deletes_all_of_its_keys_and_no_other(world: World) -> None:
    gone, kept = await world.conversation(), await world.conversation()
    await world.owner.execute(
        "INSERT INTO control.data_keys (tenant_id, conversation_id, generation_id, wrapped) VALUES ($1, $2, $3, 'own')",
        *(world.tenant_id, gone, new_id()),
    )
    erased = await erase_conversation(world.database, world.admin, gone)
    assert await world.keyed() == {kept}
    assert await world.said() == [ContentErased(conversation_id=gone, reason="asked")]
    assert [cancel.conversation_id for cancel in erased.cancels] == [gone]
    assert await recent_in(world.database, world.tenant_id, erased.conversations) == [
        cancel.generation_id for cancel in erased.cancels
    ]


async def test_only_who_may_see_a_conversation_erases_it(world: World) -> None:
    ada, bob = [await invite_user(world.database, world.tenant_id, name) for name in ("ada", "bob")]
    conversation = await world.conversation(ada)
    stranger = World(world.database, world.owner, await provision_tenant(world.database, "other"))
    for caller in (world.caller("member", bob), world.caller("member"), stranger.admin):
        with pytest.raises(NoSuch):
            await erase_conversation(world.database, caller, conversation)
    assert await world.said() == []
    await erase_conversation(world.database, world.caller("member", ada), conversation)
    assert await world.keyed() == set()


async def test_deleting_a_conversation_deletes_its_key(world: World) -> None:
    conversation = await world.conversation()
    _, cancels = await delete(world.database, world.admin, conversation)
    assert await world.keyed() == set()
    assert await world.said() == [ConversationDeleted(conversation_id=conversation)]
    assert len(cancels) == 1


async def test_erasing_a_user_is_an_event_for_each_conversation_and_one_of_the_user(world: World) -> None:
    ada, bob = [await invite_user(world.database, world.tenant_id, name) for name in ("ada", "bob")]
    of_ada = sorted([await world.conversation(ada) for _ in range(3)])
    of_bob = await world.conversation(bob)
    erased = await erase_user(world.database, world.admin, ada)
    assert await world.keyed() == {of_bob}
    assert erased.conversations == of_ada
    assert len(erased.cancels) == 3
    assert await world.said() == [
        *(ContentErased(conversation_id=one, reason="user_erased") for one in of_ada),
        UserErased(user_id=ada, conversations=3),
    ]
    with pytest.raises(NoSuch):
        await erase_user(world.database, world.admin, new_id())
    stranger = World(world.database, world.owner, await provision_tenant(world.database, "other"))
    with pytest.raises(NoSuch):
        await erase_user(world.database, stranger.admin, bob)


async def test_content_is_erased_when_nobody_has_written_for_as_long_as_it_is_kept(world: World) -> None:
    forever = await provision_tenant(world.database, "forever")
    await set_content_policy(world.database, world.tenant_id, ContentPolicy(content_days=30))
    due = await world.conversation(quiet=timedelta(days=31))
    fresh = await world.conversation(quiet=timedelta(days=29))
    others = await world.conversation(tenant_id=forever, quiet=timedelta(days=400))
    assert await erase_due(world.database, NOW) == 1
    assert await world.keyed() == {fresh, others}
    assert await erase_due(world.database, NOW) == 0, "once"
    assert await erase_due(world.database, NOW + timedelta(days=2)) == 1
    assert (await world.said())[1:] == [
        ContentErased(conversation_id=due, reason="retention"),
        ContentErased(conversation_id=fresh, reason="retention"),
    ]


async def test_one_process_erases_at_a_time(world: World) -> None:
    await set_content_policy(world.database, world.tenant_id, ContentPolicy(content_days=1))
    await world.conversation(quiet=timedelta(days=2))
    async with world.owner.transaction():
        await world.owner.execute("SELECT pg_advisory_xact_lock($1)", 0x65726173757265)
        assert await erase_due(world.database, NOW) == 0
    assert await erase_due(world.database, NOW) == 1


async def test_a_policy_is_an_event_when_it_changes(world: World) -> None:
    assert await content_policy(world.database, world.tenant_id) == ContentPolicy()
    wanted = ContentPolicy(keeps_content=False, content_days=7)
    for _ in range(2):
        await set_content_policy(world.database, world.tenant_id, wanted)
    assert await content_policy(world.database, world.tenant_id) == wanted
    assert await world.said() == [ContentPolicySet(tenant_id=world.tenant_id, policy=wanted)]
    for act in (content_policy(world.database, new_id()), set_content_policy(world.database, new_id(), wanted)):
        with pytest.raises(LookupError):
            await act
