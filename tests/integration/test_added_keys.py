"""Keys that come and go while a worker runs: whose prompts they are asked with, and how soon."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, cast
from uuid import UUID

import asyncpg
import pytest

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.adapters.redis.hub import Hub
from backplane.adapters.redis.key_room import RedisKeyRoom
from backplane.adapters.redis.signals import RedisSignals
from backplane.ports.database import Database, DatabaseUnavailable, Row
from backplane.ports.identifiers import new_id
from backplane.ports.token_stream import Signals
from backplane.security.provider_key import ProviderKey
from backplane.security.sealing import MasterKey
from backplane.settings.pools import PoolSettings
from command_api.provider_keys import ProviderKeys
from event_schemas.control_plane import ProviderKeySetAside
from event_schemas.envelope import PLATFORM
from event_schemas.generation import GenerationCompleted, Parameters
from event_schemas.payload import PaidBy
from tests.conftest import TestDatabase, ValkeyServer
from tests.contract.inference.requests import request
from tests.integration.prompts import POOL, scripted
from tests.integration.worker_world import WorkerWorld
from tests.providers.server import Providers, providers
from workers.added_keys import AddedKeys
from workers.inference.openai_chat import OpenAIBackend
from workers.inference.port import Finished, RequestRefused
from workers.keys import Keys
from workers.upstream import Upstream

ADA, BOB, EVE = (UUID(int=number) for number in (1, 2, 3))
TENANTS = {"ada": ADA, "bob": BOB, "eve": EVE}
SETTINGS = PoolSettings(backend="openai", models=("gpt-4o-mini",), requests_per_minute=1000)
NEVER_S = 3600.0


class Listening:
    """Signals, and when somebody began to listen."""

    def __init__(self, signals: RedisSignals) -> None:
        self._signals = signals
        self.begun = asyncio.Event()

    @asynccontextmanager
    async def listen(self, channel: str) -> AsyncIterator[AsyncIterator[str]]:
        async with self._signals.listen(channel) as messages:
            self.begun.set()
            yield messages


@dataclass
class Pool:
    """A pool named as no other, and its keys as an API and a worker have them."""

    server: Providers
    store: ProviderKeys
    upstream: Upstream
    keys: Keys
    added: AddedKeys
    signals: RedisSignals
    name: str
    ids: dict[tuple[UUID, str], UUID] = field(default_factory=dict)
    asked_for: dict[str, UUID] = field(default_factory=dict)
    """The tag that a prompt has at the provider → its tenant."""
    news: list[tuple[UUID, ProviderKeySetAside]] = field(default_factory=list)
    paid: list[PaidBy] = field(default_factory=list)
    """Who paid, at each request."""

    async def add(self, owner: UUID, secret: str) -> None:
        self.server.add_key(secret)
        self.ids[owner, secret] = (await self.store.add(owner, self.name, secret, "", actor="operator")).id

    async def retire(self, owner: UUID, secret: str) -> None:
        assert await self.store.retire(owner, self.ids.pop((owner, secret)), actor="operator")

    async def ask(self, tenant_id: UUID) -> str:
        """One prompt of this tenant, answered; returns the key that it was asked with."""
        wanted = replace(request(parameters=Parameters()), model="gpt-4o-mini", generation_id=new_id())
        tag = f"{wanted.generation_id}.{wanted.attempt}"
        self.asked_for[tag] = tenant_id
        async with asyncio.timeout(20):
            permit = await self.upstream.permit(tenant_id, 20)
            async with aclosing(self.upstream.answer(wanted, tenant_id, 20, permit, self.paid.append)) as items:
                ended = [item async for item in items if isinstance(item, Finished)]
        assert len(ended) == 1
        return self.server.ledger.tagged(tag)[-1].key

    @asynccontextmanager
    async def followed(self, changed: Callable[[], None] = lambda: None) -> AsyncIterator[None]:
        listening = Listening(self.signals)
        following = asyncio.create_task(self.added.follow(cast(Signals, listening), changed))
        try:
            await asyncio.wait_for(listening.begun.wait(), 10)
            yield
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following

    async def until_asked_with(self, tenant_id: UUID, secret: str) -> None:
        async with asyncio.timeout(10):
            while await self.ask(tenant_id) != secret:
                continue


class Lost:
    """Signals that nobody gets."""

    async def send(self, channel: str, message: str) -> None:
        return


class AwayAtFirst:
    """A database that does not answer the first times."""

    def __init__(self, database: PostgresDatabase, times: int) -> None:
        self._database = database
        self._times = times

    async def at_once(self, sql: str, /, **parameters: Any) -> list[Row]:
        if self._times:
            self._times -= 1
            raise DatabaseUnavailable("away by the test")
        return await self._database.at_once(sql, **parameters)


class World:
    def __init__(self, database: TestDatabase, redis_url: str, server: Providers) -> None:
        self.database = database
        self.redis_url = redis_url
        self.server = server
        self.master_key = MasterKey(secrets.token_hex(32))
        self.room = RedisKeyRoom(redis_url)
        self.hub = Hub(redis_url)
        self.signals = RedisSignals(redis_url, self.hub)
        self.commands = PostgresDatabase(database.role_url("command_api"), pool_size=2)
        self.work = PostgresDatabase(database.role_url("worker"), pool_size=1)
        self.backend = OpenAIBackend(server.openai_url, slots=32)
        self.name = f"p{secrets.token_hex(4)}"

    async def pool(
        self,
        *configured: str,
        master_key: MasterKey | None = None,
        poll_s: float = NEVER_S,
        name: str | None = None,
        told_of: Signals | None = None,
        work: Database | None = None,
    ) -> Pool:
        """``told_of`` are the signals that are sent, ``work`` is what the worker reads from."""
        name = name or self.name
        for secret in configured:
            self.server.add_key(secret)
        keys = Keys(name, SETTINGS, [ProviderKey.of(one) for one in configured], self.room)
        added = AddedKeys(name, work or self.work, master_key or self.master_key, keys, poll_s)
        store = ProviderKeys(self.commands, told_of or self.signals, self.master_key, {name: SETTINGS})
        news: list[tuple[UUID, ProviderKeySetAside]] = []

        async def announce(owner: UUID, told: ProviderKeySetAside) -> None:
            news.append((owner, told))

        upstream = Upstream(self.backend, SETTINGS, keys, announce)
        return Pool(self.server, store, upstream, keys, added, self.signals, name, news=news)

    async def close(self) -> None:
        for close in (self.backend, self.signals, self.hub, self.room, self.commands, self.work):
            await close.close()


@pytest.fixture
async def world(database: TestDatabase, valkey_server: ValkeyServer) -> AsyncIterator[World]:
    async with providers() as server:
        made = World(database, valkey_server.url, server)
        await made.backend.start(lambda doing, share: None)
        yield made
        await made.close()


async def test_a_tenants_own_key_is_its_own_and_nobody_elses(world: World) -> None:
    pool = await world.pool("configured")
    assert await pool.ask(ADA) == "configured"
    await pool.add(ADA, "adas")
    await pool.add(PLATFORM, "added")
    assert await pool.added.load()
    assert {await pool.ask(ADA) for _ in range(4)} == {"adas"}
    assert {await pool.ask(BOB) for _ in range(8)} == {"configured", "added"}
    await pool.retire(ADA, "adas")
    await pool.retire(PLATFORM, "added")
    assert await pool.added.load()
    assert {await pool.ask(ADA) for _ in range(4)} == {"configured"}
    assert not await pool.added.load()
    assert pool.paid == ["platform", *["tenant"] * 4, *["platform"] * 12]


async def test_a_change_is_heard_at_once(world: World) -> None:
    pool, other = await world.pool("configured"), await world.pool("configured", name="other")
    changes: list[str] = []
    async with pool.followed(lambda: changes.append("here")), other.followed(lambda: changes.append("elsewhere")):
        await pool.add(ADA, "adas")
        await pool.until_asked_with(ADA, "adas")
        await pool.retire(ADA, "adas")
        await pool.until_asked_with(ADA, "configured")
    assert changes == ["here", "here"]


async def test_a_change_is_noticed_without_its_signal_and_through_an_outage(world: World) -> None:
    away = cast(Database, AwayAtFirst(world.work, times=3))
    pool = await world.pool("configured", poll_s=0.05, told_of=cast(Signals, Lost()), work=away)
    async with pool.followed():
        await pool.add(ADA, "adas")
        await pool.until_asked_with(ADA, "adas")
        await pool.retire(ADA, "adas")
        await pool.until_asked_with(ADA, "configured")


async def test_without_a_key_of_the_platforms_only_those_with_their_own_are_answered(world: World) -> None:
    pool = await world.pool()
    none = [pool.keys.are_none]
    await pool.add(ADA, "adas")
    await pool.added.load()
    none.append(pool.keys.are_none)
    assert none == [True, False]
    assert await pool.ask(ADA) == "adas"
    assert list(await pool.upstream.look()) == []
    with pytest.raises(RequestRefused, match="the platform has no key for pool") as refused:
        await pool.ask(BOB)
    assert refused.value.reason == "no_usable_key"
    await pool.add(PLATFORM, "added")
    await pool.added.load()
    assert await pool.ask(BOB) == "added"
    assert [state.key_id for state in await pool.upstream.look()] == [ProviderKey.of("added").id]


async def test_a_server_of_ones_own_is_asked_with_a_key_once_it_has_one(world: World) -> None:
    pool = await world.pool("none")
    assert await pool.ask(ADA) == "none"
    await pool.add(PLATFORM, "real")
    await pool.added.load()
    assert {await pool.ask(ADA) for _ in range(4)} == {"real"}


async def test_a_tenants_key_that_is_refused_is_the_tenants_affair(world: World) -> None:
    pool = await world.pool("configured")
    await pool.add(ADA, "wrong")
    pool.server.add_key("wrong", status="revoked")
    await pool.added.load()
    for _ in range(2):
        with pytest.raises(RequestRefused, match="none of the tenant's own keys for pool") as refused:
            await pool.ask(ADA)
        assert refused.value.reason == "own_keys_refused"
        assert "retire them all" in str(refused.value)
    ((owner, news),) = pool.news
    assert (owner, news.key_id, news.pool) == (ADA, ProviderKey.of("wrong").id, pool.name)
    # The very same key rests for nobody else.
    await pool.add(BOB, "wrong")
    pool.server.add_key("wrong")
    await pool.added.load()
    assert await pool.ask(BOB) == "wrong"
    assert await pool.ask(EVE) == "configured"


async def test_under_another_master_key_the_operator_is_told_and_no_other_key_is_used(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    other = MasterKey(secrets.token_hex(32))
    pool = await world.pool("configured", master_key=other)
    await pool.add(ADA, "sk-canary")
    await pool.add(PLATFORM, "sk-canary")
    with caplog.at_level(logging.DEBUG):
        await pool.added.load()
        await pool.added.load()
    told = [record for record in caplog.records if record.__dict__.get("action") == "key_not_opened"]
    assert {record.__dict__["tenant_id"] for record in told} == {str(ADA), str(PLATFORM)}
    assert len(told) == 2, "once for each key"
    assert f"under the master key {world.master_key.id}, and security.master_key is {other.id}" in str(told[0].__dict__)
    assert "canary" not in str([record.__dict__ for record in caplog.records])
    with pytest.raises(RequestRefused, match="cannot be opened any more"):
        await pool.ask(ADA)
    assert await pool.ask(BOB) == "configured"


async def test_a_row_that_was_moved_to_another_tenant_or_pool_opens_nowhere(world: World) -> None:
    pool = await world.pool("configured")
    await pool.add(ADA, "adas")
    owner = await asyncpg.connect(world.database.owner_url)
    await owner.execute("UPDATE control.provider_keys SET tenant_id = $1", BOB)
    await owner.close()
    await pool.added.load()
    with pytest.raises(RequestRefused, match="cannot be opened any more"):
        await pool.ask(BOB)
    assert await pool.ask(ADA) == "configured"


@pytest.mark.parametrize("attempt", range(3))
async def test_no_prompt_is_ever_asked_with_somebody_elses_key(world: World, attempt: int) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    pool = await world.pool("platform-0")
    wrong: list[str] = []
    owned: dict[UUID, bool] = defaultdict(bool)
    """Whether the worker surely knows of a key of its own."""
    retired: Counter[UUID] = Counter()
    ended = False

    async def talk(name: str, tenant_id: UUID) -> None:
        while not ended:
            has_own, before = owned[tenant_id], retired[tenant_id]
            with suppress(RequestRefused):  # its own keys were refused: still nobody else's
                key = await pool.ask(tenant_id)
                if has_own and retired[tenant_id] == before and key.startswith("platform"):
                    wrong.append(f"{name} has keys, and was asked with {key}")

    async def change() -> None:
        for number in range(1, 25):
            name = chance.choice([*TENANTS, "platform"])
            owner = TENANTS.get(name, PLATFORM)
            theirs = [secret for of, secret in pool.ids if of == owner]
            if theirs and chance.random() < 0.5:
                retired[owner] += 1
                owned[owner] = False
                await pool.retire(owner, chance.choice(theirs))
            else:
                await pool.add(owner, f"{name}-{number}")
                if chance.random() < 0.2:
                    pool.server.add_key(f"{name}-{number}", status="revoked")
            await pool.added.load()
            owned[owner] = any(of == owner for of, _ in pool.ids)

    async with asyncio.TaskGroup() as tasks:
        for name, tenant_id in TENANTS.items():
            for _ in range(4):
                tasks.create_task(talk(name, tenant_id))
        await change()
        ended = True
    assert wrong == []
    # By the provider's own account, with all that it refused; a key's name begins with its owner's.
    names = {tenant_id: name for name, tenant_id in TENANTS.items()}
    met = {(names[pool.asked_for[one.tag or ""]], one.key.partition("-")[0]) for one in pool.server.ledger.entries}
    assert met <= {(name, owner) for name in TENANTS for owner in (name, "platform")}
    assert len(pool.server.ledger.entries) > 50


async def test_what_waits_for_room_is_asked_with_a_key_that_is_added_meanwhile(
    world: World, valkey_server: ValkeyServer
) -> None:
    resting = f"resting-{secrets.token_hex(4)}"
    pool = await world.pool(resting, name=POOL)
    await world.room.rest(POOL, ProviderKey.of(resting).id, 3600, "rate_limited")
    async with WorkerWorld(world.database, valkey_server.url) as workers:
        worker = await workers.worker("w", upstream=pool.upstream)
        async with pool.followed(worker.worker.keys_changed):
            one = scripted().model_copy(update={"model": "gpt-4o-mini"})
            await workers.submit(one)

            async def waits() -> bool:
                return worker.worker.waiting.oldest_s() > 0.3

            await workers.until(waits, "it waits for room")
            await pool.add(workers.tenant_id, "own")
            ended: Any = (await workers.ended(one)).data
            assert isinstance(ended, GenerationCompleted)
    assert len(pool.server.ledger["own"].asked) == 1
    assert len(pool.server.ledger[resting].asked) == 0
