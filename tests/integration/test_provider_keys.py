"""Provider keys that are added at run time: decided in one transaction, sealed, and nobody else's to see."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID

import asyncpg
import pytest

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.ports.identifiers import new_id
from backplane.ports.token_stream import Signals
from backplane.security.provider_key import CHANGED, ProviderKey, place
from backplane.security.sealing import MasterKey
from backplane.settings import PoolSettings
from command_api.admission import Refused
from command_api.provider_keys import MOST_KEYS, AddedBefore, NoSuchProviderKey, ProviderKeys
from event_schemas.codec import decode
from event_schemas.control_plane import ProviderKeyAdded, ProviderKeyRetired
from event_schemas.envelope import PLATFORM
from query_api import sql
from tests.conftest import TestDatabase

POOLS = {
    "cloud": PoolSettings(backend="openai", models=("m",)),
    "second": PoolSettings(backend="openai", models=("n",)),
    "other": PoolSettings(backend="anthropic", models=("c",)),
    "local": PoolSettings(backend="scripted"),
}


class Sent:
    def __init__(self) -> None:
        self.signals: list[tuple[str, str]] = []

    async def send(self, channel: str, message: str) -> None:
        self.signals.append((channel, message))


@dataclass
class Store:
    database: TestDatabase
    commands: PostgresDatabase
    owner: asyncpg.Connection
    sent: Sent = field(default_factory=Sent)
    master_key: MasterKey = field(default_factory=lambda: MasterKey(secrets.token_hex(32)))
    tenant: UUID = field(default_factory=new_id)

    @property
    def keys(self) -> ProviderKeys:
        return ProviderKeys(self.commands, cast(Signals, self.sent), self.master_key, POOLS)

    async def add(self, secret: str, owner: UUID | None = None, pool: str = "cloud") -> UUID:
        added = await self.keys.add(owner or self.tenant, pool, secret, "ours", actor="key:me")
        return added.id

    async def live(self, owner: UUID, role: str = "query_api") -> list[UUID]:
        database = PostgresDatabase(self.database.role_url(role), pool_size=1)
        try:
            async with database.tenant(owner) as session:
                return [row["id"] for row in await sql.provider_keys(cast(Any, session))]
        finally:
            await database.close()

    async def everything(self) -> bytes:
        """All rows of all tables, as their owner reads them, and what stands in binary columns too."""
        tables = await self.owner.fetch(
            "SELECT c.oid::regclass::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind = 'r' AND n.nspname IN ('control', 'work', 'read_models', 'bus')"
        )
        dump = b""
        for table in tables:
            for row in await self.owner.fetch(f"SELECT * FROM {table['name']}"):
                dump += b"".join(one if isinstance(one, bytes) else str(one).encode() for one in row.values())
        return dump


@pytest.fixture
async def store(database: TestDatabase) -> AsyncIterator[Store]:
    commands = PostgresDatabase(database.role_url("command_api"), pool_size=4)
    owner = await asyncpg.connect(database.owner_url)
    yield Store(database, commands, owner)
    await owner.close()
    await commands.close()


async def test_it_is_sealed_told_and_signalled_in_one_step(store: Store) -> None:
    added = await store.keys.add(store.tenant, "cloud", "sk-canary", "ours", actor="key:me")
    assert await store.live(store.tenant) == [added.id]
    row = await store.owner.fetchrow("SELECT * FROM control.provider_keys")
    assert row is not None
    assert store.master_key.open(row["sealed"], place(store.tenant, added.id, "cloud")) == "sk-canary"
    (outbox,) = await store.owner.fetch("SELECT envelope FROM control.outbox")
    event = decode(outbox["envelope"])
    assert event.data == ProviderKeyAdded(
        key_id=added.id, pool="cloud", name="ours", fingerprint=ProviderKey.of("sk-canary").id
    )
    assert (event.tenantid, event.actor, event.subject) == (store.tenant, "key:me", f"provider_key:{added.id}")
    assert store.sent.signals == [(CHANGED, "cloud")]
    assert b"canary" not in await store.everything()


async def test_several_pools_get_it_together_or_not_at_all(store: Store) -> None:
    both = ("cloud", "second")
    await store.add("sk-known")
    (added,) = await store.keys.add_to(store.tenant, both, "sk-known", "ours", actor="key:me")
    assert added.pool == "second", "the first has it"
    with pytest.raises(AddedBefore):
        await store.keys.add_to(store.tenant, both, "sk-known", "ours", actor="key:me")
    for number in range(MOST_KEYS - 1):
        await store.add(f"sk-{number}", pool="second")
    before, signals = await store.live(store.tenant), len(store.sent.signals)
    with pytest.raises(Refused, match="'second' has 32 keys"):
        await store.keys.add_to(store.tenant, both, "sk-new", "ours", actor="key:me")
    assert await store.live(store.tenant) == before
    assert len(store.sent.signals) == signals


async def test_a_retired_one_keeps_no_secret_and_retiring_again_says_nothing_new(store: Store) -> None:
    key = await store.add("sk-canary")
    assert await store.keys.retire(store.tenant, key, actor="key:me")
    assert not await store.keys.retire(store.tenant, key, actor="key:me")
    row = await store.owner.fetchrow("SELECT sealed, retired_at FROM control.provider_keys")
    assert row is not None
    assert row["sealed"] is None
    assert row["retired_at"] is not None
    assert await store.live(store.tenant) == []
    told = [decode(row["envelope"]).data for row in await store.owner.fetch("SELECT envelope FROM control.outbox")]
    assert told[1:] == [ProviderKeyRetired(key_id=key)]
    assert await store.add("sk-canary") != key, "the same key may come back"


async def test_the_same_key_is_there_once_for_each_owner_and_pool(store: Store) -> None:
    key = await store.add("sk-canary")
    with pytest.raises(AddedBefore) as before:
        await store.add("sk-canary")
    assert before.value.key_id == key
    assert "canary" not in str(before.value)
    assert len({key, *[await store.add("sk-canary", new_id()), await store.add("sk-canary", pool="other")]}) == 3


async def test_two_at_the_same_time_are_one(store: Store) -> None:
    answers = await asyncio.gather(*(store.add("sk-canary") for _ in range(4)), return_exceptions=True)
    assert sorted(type(one).__name__ for one in answers) == ["AddedBefore"] * 3 + ["UUID"]
    assert len(await store.live(store.tenant)) == 1


async def test_an_owner_has_so_many_in_a_pool_and_no_more(store: Store) -> None:
    answers = await asyncio.gather(*(store.add(f"sk-{n}") for n in range(MOST_KEYS + 3)), return_exceptions=True)
    refused = [one for one in answers if isinstance(one, Refused)]
    assert [(one.type, one.field) for one in refused] == [("too-many-keys", "body.pool")] * 3
    assert len(await store.live(store.tenant)) == MOST_KEYS
    await store.add("sk-0", new_id())
    await store.add("sk-0", pool="other")


@pytest.mark.parametrize(
    ("pool", "secret", "field", "says"),
    [
        ("cluod", "sk-canary", "body.pool", "'cluod' is not there. Pools that take keys: cloud, second, other"),
        ("local", "sk-canary", "body.pool", "'local' takes no keys"),
        ("cloud", "", "body.key", "empty"),
        ("cloud", "sk canary", "body.key", "blanks"),
        ("cloud", "default", "body.key", "only the settings may name it"),
        ("cloud", "canary" * 10_000, "body.key", "the limit is"),
    ],
)
async def test_what_cannot_be_used_is_refused_by_its_field(
    store: Store, pool: str, secret: str, field: str, says: str
) -> None:
    with pytest.raises(Refused, match=says) as refused:
        await store.add(secret, pool=pool)
    assert refused.value.field == field
    assert "canary" not in str(refused.value)
    assert await store.live(store.tenant) == []


async def test_another_tenants_is_not_there(store: Store) -> None:
    other = new_id()
    key = await store.add("sk-canary")
    platforms = await store.add("sk-platform", PLATFORM)
    for owner, mine, foreign in ((other, [], key), (PLATFORM, [platforms], key), (store.tenant, [key], platforms)):
        for role in ("command_api", "query_api"):
            assert await store.live(owner, role) == mine
        with pytest.raises(NoSuchProviderKey):
            await store.keys.retire(owner, foreign, actor="key:thief")
    assert await store.live(store.tenant) == [key]


STATEMENTS = {
    "list": "SELECT key_id, pool, name, fingerprint, added_at, retired_at FROM control.provider_keys",
    "read the sealed": "SELECT key_id, tenant_id, pool, sealed FROM control.provider_keys WHERE retired_at IS NULL",
    "add": "INSERT INTO control.provider_keys (key_id, tenant_id, pool, name, fingerprint, sealed)"
    " SELECT gen_random_uuid(), tenant_id, pool, name, 'x', '' FROM control.provider_keys",
    "retire": "UPDATE control.provider_keys SET sealed = NULL, retired_at = now()",
    "copy the sealed": "UPDATE control.provider_keys SET sealed = sealed || ''",
    "give away": "UPDATE control.provider_keys SET tenant_id = gen_random_uuid()",
    "move": "UPDATE control.provider_keys SET pool = 'other'",
    "delete": "DELETE FROM control.provider_keys",
    "truncate": "TRUNCATE control.provider_keys",
}


async def test_what_each_role_may_do_is_no_more_than_it_needs(store: Store) -> None:
    await store.add("sk-canary")
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
        ("command_api", "list"),
        ("command_api", "add"),
        ("command_api", "retire"),
        ("query_api", "list"),
        ("worker", "read the sealed"),
    }


async def test_a_worker_sees_every_tenants_and_the_apis_see_none_without_a_tenant(store: Store) -> None:
    for owner in (store.tenant, new_id(), PLATFORM):
        await store.add("sk-canary", owner)
    seen = {}
    for role in ("command_api", "query_api", "worker"):
        connection = await asyncpg.connect(store.database.role_url(role))
        seen[role] = await connection.fetchval("SELECT count(key_id) FROM control.provider_keys")
        await connection.close()
    assert seen == {"command_api": 0, "query_api": 0, "worker": 3}
