"""Webhooks of tenants: decided in one transaction, sealed, and nobody else's to see."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import get_args
from uuid import UUID

import asyncpg
import pytest

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.ports.identifiers import new_id
from backplane.security.sealing import MasterKey
from command_api import webhooks
from command_api.admission import Refused
from command_api.webhooks import MOST_WEBHOOKS, EventType, NoSuchWebhook, Target, Webhooks
from event_schemas.codec import decode
from event_schemas.registry import BY_BASE, EVENTS
from event_schemas.webhooks import WebhookAdded, WebhookRemoved
from tests.conftest import TestDatabase

URL = "https://hooks.example.com/parley"


@dataclass
class Store:
    database: TestDatabase
    commands: PostgresDatabase
    owner: asyncpg.Connection
    master_key: MasterKey = field(default_factory=lambda: MasterKey(secrets.token_hex(32)))
    tenant: UUID = field(default_factory=new_id)

    @property
    def webhooks(self) -> Webhooks:
        return Webhooks(self.commands, self.master_key, allow_private=False)

    async def add(self, url: str = URL, owner: UUID | None = None) -> UUID:
        added = await self.webhooks.add(owner or self.tenant, url, ["key.revoked"], actor="key:me")
        return added.id

    async def told(self) -> list[object]:
        rows = await self.owner.fetch("SELECT envelope FROM control.outbox ORDER BY id")
        return [decode(row["envelope"]).data for row in rows]


@pytest.fixture
async def store(database: TestDatabase) -> AsyncIterator[Store]:
    commands = PostgresDatabase(database.role_url("command_api"), pool_size=4)
    owner = await asyncpg.connect(database.owner_url)
    yield Store(database, commands, owner)
    await owner.close()
    await commands.close()


def test_what_webhooks_may_be_told_of_are_events() -> None:
    assert {BY_BASE[name] for name in get_args(EventType)} <= set(EVENTS)


async def test_it_is_sealed_and_told_in_one_step(store: Store) -> None:
    added = await store.webhooks.add(
        store.tenant, f"{URL}?token=canary", ["limit.nearly_reached", "key.revoked", "key.revoked"], actor="key:me"
    )
    assert len(base64.b64decode(added.secret.removeprefix("whsec_"))) == 32
    assert (added.url, added.event_types) == (URL, ("key.revoked", "limit.nearly_reached"))
    (row,) = await store.owner.fetch("SELECT * FROM control.webhooks")
    target = Target(f"{URL}?token=canary", added.secret)
    assert webhooks.opened(store.master_key, row["sealed"], store.tenant, added.id) == target
    assert await store.told() == [WebhookAdded(webhook_id=added.id, url=URL, event_types=added.event_types)]
    (outbox,) = await store.owner.fetch("SELECT envelope FROM control.outbox")
    for shown in (str(dict(row) | {"sealed": None}), outbox["envelope"].decode(), repr(added), repr(target)):
        assert "canary" not in shown
        assert added.secret not in shown
    (listed,) = await store.webhooks.all(store.tenant)
    assert (listed["id"], listed["url"], listed["failures"], listed["next_try_at"]) == (added.id, URL, 0, None)


async def test_a_removed_one_keeps_no_secret(store: Store) -> None:
    webhook = await store.add()
    await store.webhooks.remove(store.tenant, webhook, actor="key:me")
    assert await store.owner.fetch("SELECT * FROM control.webhooks") == []
    assert (await store.told())[1:] == [WebhookRemoved(webhook_id=webhook)]
    with pytest.raises(NoSuchWebhook):
        await store.webhooks.remove(store.tenant, webhook, actor="key:me")
    assert len(await store.told()) == 2


async def test_a_tenant_has_so_many_and_no_more(store: Store) -> None:
    answers = await asyncio.gather(*(store.add() for _ in range(MOST_WEBHOOKS + 3)), return_exceptions=True)
    assert [one.type for one in answers if isinstance(one, Refused)] == ["too-many-webhooks"] * 3
    assert len(await store.webhooks.all(store.tenant)) == MOST_WEBHOOKS
    await store.add(owner=new_id())


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://hooks.example.com/", "must begin with https"),
        ("ftp://hooks.example.com/", "must begin with https"),
        ("hooks.example.com", "must begin with https"),
        ("https:///path", "names no host"),
        ("https://canary:canary@hooks.example.com/", "must not hold a user"),
        ("https://canary@hooks.example.com/", "must not hold a user"),
        ("https://hooks.example.com/#canary", "must not have a fragment"),
        ("https://hooks.example.com:99999/", "is not one"),
        ("https://[::1/", "is not one"),
        ("https://[::1]/", "not on the internet"),
        ("https://[::ffff:10.0.0.1]:8443/", "not on the internet"),
        ("https://10.0.0.1/", "not on the internet"),
        ("https://169.254.169.254/latest", "not on the internet"),
        ("https://hooks.example.com/a b", "visible ASCII"),
        ("https://hooks.example.com/\n", "visible ASCII"),
        ("https://höoks.example.com/", "visible ASCII"),
        ("https://hooks.example.com/" + "canary" * 1000, "the limit is"),
    ],
)
async def test_a_url_that_is_of_no_use_is_refused(store: Store, url: str, says: str) -> None:
    with pytest.raises(Refused, match=says) as refused:
        await store.add(url)
    assert refused.value.field == "body.url"
    assert "canary" not in str(refused.value)
    assert await store.webhooks.all(store.tenant) == []


async def test_with_leave_a_url_may_be_private(store: Store) -> None:
    lenient = Webhooks(store.commands, store.master_key, allow_private=True)
    added = await lenient.add(store.tenant, "http://127.0.0.1:8080/hook", ["key.revoked"], actor="key:me")
    assert added.url == "http://127.0.0.1:8080/hook"


async def test_another_tenants_is_not_there(store: Store) -> None:
    other, webhook = new_id(), await store.add()
    assert await store.webhooks.all(other) == []
    with pytest.raises(NoSuchWebhook):
        await store.webhooks.remove(other, webhook, actor="key:thief")
    relay = PostgresDatabase(store.database.role_url("relay"), pool_size=1)
    ask = "SELECT sealed FROM control.sealed_webhook(:owner, :id)"
    assert len(await relay.at_once(ask, owner=store.tenant, id=webhook)) == 1
    assert await relay.at_once(ask, owner=other, id=webhook) == []
    await relay.close()
    assert [one["id"] for one in await store.webhooks.all(store.tenant)] == [webhook]


STATEMENTS = {
    "list": "SELECT webhook_id, url, told_to FROM control.webhooks",
    "read the sealed": "SELECT sealed FROM control.webhooks",
    "add": "INSERT INTO control.webhooks (webhook_id, tenant_id, url, event_types, sealed, told_to)"
    " SELECT gen_random_uuid(), tenant_id, url, event_types, '', 0 FROM control.webhooks",
    "move on": "UPDATE control.webhooks SET told_to = 1, failures = 0, taker = NULL",
    "give away": "UPDATE control.webhooks SET tenant_id = gen_random_uuid()",
    "lead elsewhere": "UPDATE control.webhooks SET url = 'https://elsewhere.example/'",
    "remove": "DELETE FROM control.webhooks",
    "truncate": "TRUNCATE control.webhooks",
    "take": "SELECT control.take_webhooks(gen_random_uuid(), 1, 1)",
    "open": "SELECT control.sealed_webhook(gen_random_uuid(), gen_random_uuid())",
    "list warnings": "SELECT * FROM control.limit_warnings",
    "warn": "INSERT INTO control.limit_warnings VALUES (control.current_tenant(), 'a', 'b', 'c', now())",
    "forget warnings": "DELETE FROM control.limit_warnings",
}


async def test_what_each_role_may_do_is_no_more_than_it_needs(store: Store) -> None:
    await store.add()
    done = set()
    for role in ("command_api", "query_api", "worker", "projections", "relay"):
        connection = await asyncpg.connect(store.database.role_url(role))
        await connection.execute("SELECT set_config('parley.tenant', $1, false)", str(store.tenant))
        for name, statement in STATEMENTS.items():
            transaction = connection.transaction()
            await transaction.start()
            try:
                await connection.execute(statement)
                done.add((role, name))
            except asyncpg.InsufficientPrivilegeError:
                continue
            finally:
                await transaction.rollback()
        await connection.close()
    assert done == {
        *(("command_api", name) for name in ("list", "add", "move on", "remove", "list warnings", "warn")),
        ("relay", "take"),
        ("relay", "open"),
    }


async def test_without_a_tenant_the_api_sees_none(store: Store) -> None:
    await store.add()
    connection = await asyncpg.connect(store.database.role_url("command_api"))
    assert await connection.fetchval("SELECT count(webhook_id) FROM control.webhooks") == 0
    await connection.close()
