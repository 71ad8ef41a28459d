"""What ends, ends on every process: by the signal at once, and without it once what was remembered is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import pytest

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.adapters.redis.hub import Hub
from backplane.adapters.redis.signals import RedisSignals
from backplane.ports.database import Row
from backplane.security.api_key import ApiKey
from backplane.security.authenticator import Authenticator, NotAccepted, revocation
from backplane.security.password import Passwords
from backplane.security.principal import Principal
from backplane.settings import Settings
from command_api import tenancy
from command_api.api_keys import ApiKeys
from command_api.people import People
from command_api.refusals import Refusals
from command_api.sessions import Sessions
from tests.conftest import TestDatabase, ValkeyServer
from tests.integration.publications import Publications

PEPPER = "pepper"
REMEMBER_S = 3600.0


class NoSignals:
    """Redis is away: nothing that is sent arrives."""

    async def send(self, channel: str, message: str) -> None: ...

    @asynccontextmanager
    async def listen(self, channel: str) -> AsyncIterator[AsyncIterator[str]]:
        async def none() -> AsyncIterator[str]:
            await asyncio.Event().wait()
            yield ""

        yield none()


@dataclass
class World:
    commands: PostgresDatabase
    signals: RedisSignals | NoSignals
    processes: list[Authenticator]
    now: float = 0.0

    @property
    def people(self) -> People:
        return People(self.commands, self.signals, PEPPER, Passwords(), 1)

    @property
    def sessions(self) -> Sessions:
        return Sessions(self.commands, self.signals, PEPPER, Passwords(), Refusals(Publications(), 60), 1)

    @property
    def keys(self) -> ApiKeys:
        return ApiKeys(self.commands, self.signals, PEPPER, Settings())

    async def known(self, secret: str) -> list[Principal]:
        """Who each process says it is. Raises NotAccepted where one does not know it."""
        return [await asked(process, secret) for process in self.processes]

    async def refused(self, secret: str) -> None:
        """Once every process refuses it."""
        async with asyncio.timeout(10):
            for process in self.processes:
                with pytest.raises(NotAccepted):
                    while True:
                        await asked(process, secret)
                        await asyncio.sleep(0.005)


async def asked(process: Authenticator, secret: str) -> Principal:
    """Whose the key or the session is. Raises NotAccepted."""
    return await (process.principal(secret) if secret.startswith("parley_") else process.session(secret))


@asynccontextmanager
async def world(database: TestDatabase, redis_url: str | None) -> AsyncIterator[World]:
    """Two processes of the APIs that remember for an hour by ``now``."""
    async with AsyncExitStack() as stack:
        adapters = [PostgresDatabase(database.role_url(role), pool_size=4) for role in ("command_api", "query_api")]
        for adapter in adapters:
            stack.push_async_callback(adapter.close)
        made = World(adapters[0], NoSignals(), [])
        made.processes = [Authenticator(each, PEPPER, REMEMBER_S, clock=lambda: made.now) for each in adapters]
        if redis_url is not None:
            hub = Hub(redis_url)
            stack.push_async_callback(hub.close)
            made.signals = RedisSignals(redis_url, hub)
            stack.push_async_callback(made.signals.close)
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            for each in made.processes:
                stack.callback(tasks.create_task(each.forget_revoked(made.signals)).cancel)
            await heard(made)
        yield made


async def heard(world: World) -> None:
    """Once both processes listen: what was sent before is nobody's to hear."""
    before = [each._revocations for each in world.processes]
    async with asyncio.timeout(10):
        while any(each._revocations == count for each, count in zip(world.processes, before, strict=True)):
            await world.signals.send("keys:revoked", revocation("key", UUID(int=1)))
            await asyncio.sleep(0.01)


@dataclass
class Somebody:
    tenant: UUID
    owner: Principal
    user: UUID
    key: ApiKey
    key_id: UUID
    session: str
    session_id: UUID


async def somebody(world: World) -> Somebody:
    """A user with a key and a session, known to every process."""
    tenant = await tenancy.provision_tenant(world.commands, "acme")
    owner = await tenancy.first_owner_key(world.commands, PEPPER, tenant, actor="operator")
    principal = await world.processes[0].principal(owner.key.reveal())
    user = await tenancy.invite_user(world.commands, tenant, "ada", "admin")
    key = await tenancy.issue_key(world.commands, PEPPER, tenant, "admin", user_id=user)
    (known, _) = await world.known(key.reveal())
    begun = await world.sessions.begin(tenant, user, None, "password")
    await world.known(begun.token)
    return Somebody(tenant, principal, user, key, known.key_id, begun.token, begun.session_id)


async def revoke_key(world: World, who: Somebody) -> list[str]:
    await world.keys.revoke(who.owner, who.key_id)
    return [who.key.reveal()]


async def rotate_key(world: World, who: Somebody) -> list[str]:
    await world.keys.rotate(who.owner, who.key_id, timedelta())
    return [who.key.reveal()]


async def end_session(world: World, who: Somebody) -> list[str]:
    (principal, _) = await world.known(who.session)
    await world.sessions.end(principal, who.session_id)
    return [who.session]


async def suspend_user(world: World, who: Somebody) -> list[str]:
    await world.people.suspend(who.owner, who.user)
    return [who.key.reveal(), who.session]


async def remove_user(world: World, who: Somebody) -> list[str]:
    await world.people.remove(who.owner, who.user)
    return [who.key.reveal(), who.session]


async def suspend_tenant(world: World, who: Somebody) -> list[str]:
    await tenancy.suspend(world.commands, world.signals, who.tenant)
    return [who.key.reveal(), who.session]


Ends = Callable[[World, Somebody], Awaitable[list[str]]]
ENDINGS: list[Ends] = [revoke_key, rotate_key, end_session, suspend_user, remove_user, suspend_tenant]


@pytest.mark.parametrize("end", ENDINGS)
async def test_the_signal_ends_it_on_every_process_at_once(
    database: TestDatabase, valkey_server: ValkeyServer, end: Ends
) -> None:
    async with world(database, valkey_server.url) as made:
        for secret in await end(made, await somebody(made)):
            await made.refused(secret)


@pytest.mark.parametrize("end", ENDINGS)
async def test_where_the_signal_is_lost_it_ends_once_what_was_remembered_is_forgotten(
    database: TestDatabase, end: Ends
) -> None:
    async with world(database, None) as made:
        secrets = await end(made, await somebody(made))
        for secret in secrets:
            assert len(await made.known(secret)) == 2  # the safety net is time
        made.now = REMEMBER_S + 1
        for secret in secrets:
            await made.refused(secret)


async def test_a_role_that_is_taken_away_is_gone_from_keys_and_sessions_at_once(
    database: TestDatabase, valkey_server: ValkeyServer
) -> None:
    async with world(database, valkey_server.url) as made:
        who = await somebody(made)
        await made.people.change_role(who.owner, who.user, "member")
        for secret in (who.key.reveal(), who.session):
            async with asyncio.timeout(10):
                while {principal.role for principal in await made.known(secret)} != {"member"}:
                    await asyncio.sleep(0.005)
        await made.people.change_role(who.owner, who.user, "auditor")
        async with asyncio.timeout(10):
            while {principal.role for principal in await made.known(who.session)} != {"auditor"}:
                await asyncio.sleep(0.005)


async def test_what_is_revoked_while_it_is_looked_up_is_not_remembered(database: TestDatabase) -> None:
    async with world(database, None) as made:
        who = await somebody(made)

        class Slow(PostgresDatabase):
            async def at_once(self, sql: str, /, **parameters: object) -> list[Row]:
                rows = await super().at_once(sql, **parameters)
                if not revoked:
                    revoked.append(await made.keys.revoke(who.owner, who.key_id))
                    late.forget(revocation("key", who.key_id))
                return rows

        revoked: list[bool] = []
        slow = Slow(database.role_url("query_api"), pool_size=1)
        late = Authenticator(slow, PEPPER, REMEMBER_S)
        try:
            await late.principal(who.key.reveal())  # it was asked before the key ended
            with pytest.raises(NotAccepted, match="revoked"):
                await late.principal(who.key.reveal())
        finally:
            await slow.close()
