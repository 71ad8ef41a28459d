from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.ports.identifiers import new_id
from backplane.security.api_key import ApiKey
from backplane.security.authenticator import REVOCATIONS, Authenticator, NotAccepted
from command_api.api_keys import NoSuchKey
from command_api.tenancy import invite_user, issue_key, provision_tenant, revoke_key, set_share
from event_schemas.share import Share
from tests.conftest import TestDatabase

PEPPER = "pepper"


class LocalSignals:
    """Signals within one process: enough to see who sends what to whom."""

    def __init__(self) -> None:
        self.queues: dict[str, list[asyncio.Queue[str]]] = {}

    async def send(self, channel: str, message: str) -> None:
        for queue in self.queues.get(channel, ()):
            queue.put_nowait(message)

    @asynccontextmanager
    async def listen(self, channel: str) -> AsyncIterator[AsyncIterator[str]]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        self.queues.setdefault(channel, []).append(queue)

        async def messages() -> AsyncIterator[str]:
            while True:
                yield await queue.get()

        yield messages()
        self.queues[channel].remove(queue)


@pytest.fixture
async def commands(database: TestDatabase) -> AsyncIterator[PostgresDatabase]:
    adapter = PostgresDatabase(database.role_url("command_api"), pool_size=2)
    yield adapter
    await adapter.close()


async def test_a_key_stands_for_its_tenant_user_and_role(commands: PostgresDatabase) -> None:
    tenant = await provision_tenant(commands, "acme")
    user = await invite_user(commands, tenant, "ada")
    assert await invite_user(commands, tenant, "ada") == user
    key = await issue_key(commands, PEPPER, tenant, "member", user_id=user)
    principal = await Authenticator(commands, PEPPER, 60).principal(key.reveal())
    assert (principal.tenant_id, principal.user_id, principal.role) == (tenant, user, "member")
    assert principal.actor == f"user:{user}"


async def test_a_tenants_share_comes_with_its_keys_once_what_was_remembered_is_forgotten(
    commands: PostgresDatabase,
) -> None:
    tenant, other = await provision_tenant(commands, "acme"), await provision_tenant(commands, "other")
    key, others = await issue_key(commands, PEPPER, tenant, "admin"), await issue_key(commands, PEPPER, other, "admin")
    now = 0.0
    authenticator = Authenticator(commands, PEPPER, 60, clock=lambda: now)

    async def share(key: ApiKey) -> Share:
        return (await authenticator.principal(key.reveal())).share

    assert await share(key) == Share(weight=1, priority="normal")
    assert await set_share(commands, tenant, weight=3) == Share(weight=3)
    assert await set_share(commands, tenant, priority="high") == Share(weight=3, priority="high")
    assert await share(key) == Share()
    now = 61.0
    assert await share(key) == Share(weight=3, priority="high")
    assert await share(others) == Share()


async def test_a_share_is_decided_with_its_event(commands: PostgresDatabase, database: TestDatabase) -> None:
    tenant = await provision_tenant(commands, "acme")
    for weight in (7, 7, None):
        assert await set_share(commands, tenant, weight=weight) == Share(weight=7)
    with pytest.raises(ValueError, match="weight"):
        await set_share(commands, tenant, weight=101)
    with pytest.raises(LookupError, match="there is no tenant"):
        await set_share(commands, new_id(), weight=7)
    connection = await asyncpg.connect(database.owner_url)
    try:
        outbox = [json.loads(row["envelope"]) for row in await connection.fetch("SELECT envelope FROM control.outbox")]
    finally:
        await connection.close()
    told = [(each["subject"], each["data"]["share"]) for each in outbox if each["type"] == "tenant.share_set.v1"]
    assert told == [(f"tenant:{tenant}", {"weight": 7, "priority": "normal"})]


async def test_wrong_expired_and_malformed_keys_stand_for_nobody(commands: PostgresDatabase) -> None:
    tenant = await provision_tenant(commands, "acme")
    key = await issue_key(commands, PEPPER, tenant, "admin")
    expired = await issue_key(commands, PEPPER, tenant, "admin", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    authenticator = Authenticator(commands, PEPPER, 60)
    assert await authenticator.principal(key.reveal())
    wrong = ApiKey(key.prefix, ApiKey.make().secret)
    for text, why in (
        ("", "no API key"),
        ("parley_x", "no API key"),
        (wrong.reveal(), "unknown"),
        (ApiKey.make().reveal(), "unknown"),
        (expired.reveal(), "has expired"),
    ):
        with pytest.raises(NotAccepted, match=why):
            await authenticator.principal(text)
    with pytest.raises(NotAccepted, match="unknown"):
        await Authenticator(commands, "other pepper", 60).principal(key.reveal())


async def test_a_revoked_key_is_refused_at_once_where_it_was_remembered(commands: PostgresDatabase) -> None:
    signals = LocalSignals()
    tenant = await provision_tenant(commands, "acme")
    key = await issue_key(commands, PEPPER, tenant, "admin")
    authenticator = Authenticator(commands, PEPPER, remember_s=3600)
    following = asyncio.create_task(authenticator.forget_revoked(signals))
    async with asyncio.timeout(10):
        while REVOCATIONS not in signals.queues:
            await asyncio.sleep(0)
        assert await authenticator.principal(key.reveal())
        assert await revoke_key(commands, signals, key.prefix)
        with pytest.raises(NotAccepted, match="revoked"):
            while await authenticator.principal(key.reveal()):
                await asyncio.sleep(0)
        assert not await revoke_key(commands, signals, key.prefix)
    following.cancel()


async def test_revoking_what_is_not_there_says_so(commands: PostgresDatabase) -> None:
    with pytest.raises(NoSuchKey):
        await revoke_key(commands, LocalSignals(), "0" * 16)


async def test_a_tenant_without_a_filter_sees_nothing_of_another(commands: PostgresDatabase) -> None:
    one, two = await provision_tenant(commands, "one"), await provision_tenant(commands, "two")
    await issue_key(commands, PEPPER, one, "admin")
    async with commands.tenant(two) as session:
        assert await session.all("SELECT * FROM control.api_keys") == []
        # Nor sets its share, though the statement names it.
        assert await session.execute("UPDATE control.tenants SET weight = 9 WHERE tenant_id = :id", id=one) == 0
        assert [row["name"] for row in await session.all("SELECT name FROM control.tenants")] == ["two"]
    async with commands.system() as session:
        assert await session.all("SELECT * FROM control.tenants") == []
