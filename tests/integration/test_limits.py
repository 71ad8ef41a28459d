"""Limits from the door to the record and back: nothing is admitted beyond them, and nothing is paid twice."""

from __future__ import annotations

import asyncio
import json
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from backplane.adapters.postgres_bus.bus import PostgresBus
from backplane.ports.budget import NANO, BudgetUnavailable
from backplane.ports.bus import Bus, BusUnavailable, MessageTooLarge
from backplane.settings import PoolSettings
from command_api.admission import Refused
from command_api.allowance import LimitExceeded
from command_api.prompt import Accepted
from command_api.submission import Submission
from tests.conftest import TestDatabase, ValkeyServer
from tests.integration import limits_child
from tests.integration.limits_world import LimitsWorld, OpenBus, prompt

Address = dict[str, str]


@pytest.fixture(params=["postgres", pytest.param("pulsar", marks=pytest.mark.pulsar)])
def bus_address(request: pytest.FixtureRequest, database: TestDatabase) -> Address:
    if request.param == "postgres":
        return {"postgres_bus": database.role_url("worker")}
    broker = request.getfixturevalue("shared_broker")
    namespace = f"limits-{secrets.token_hex(4)}"
    if "limits-tests" not in broker.admin("GET", "tenants").json():
        broker.admin("PUT", "tenants/limits-tests", {"allowedClusters": ["standalone"]})
    broker.admin("PUT", f"namespaces/limits-tests/{namespace}")
    return {
        "pulsar": broker.url,
        "pulsar_admin": broker.admin_url,
        "pulsar_tenant": "limits-tests",
        "namespace": namespace,
    }


def opener(address: Address, database: TestDatabase) -> OpenBus:
    def open_bus(role: str) -> Bus:
        if "postgres_bus" in address:
            return PostgresBus(database.role_url(role), lease_s=2)
        return limits_child.open_bus(address)

    return open_bus


@pytest.fixture
async def world(
    database: TestDatabase, valkey_server: ValkeyServer, bus_address: Address, tmp_path: Path
) -> AsyncIterator[LimitsWorld]:
    made = LimitsWorld(database, valkey_server.url, opener(bus_address, database), tmp_path, name=secrets.token_hex(4))
    await made.start()
    yield made
    await made.close()


async def all_at_once(world: LimitsWorld, doors: list[Submission], count: int) -> list[Accepted]:
    answers = await asyncio.gather(
        *(world.submit(doors[place % len(doors)]) for place in range(count)), return_exceptions=True
    )
    unexpected = [one for one in answers if not isinstance(one, Accepted | LimitExceeded)]
    assert not unexpected
    return [one for one in answers if isinstance(one, Accepted)]


async def test_five_hundred_at_once_against_a_budget_for_fifty(world: LimitsWorld) -> None:
    await world.limit(usd_per_day=Decimal(500))
    async with world.projections():
        doors = [await world.door() for _ in range(2)]
        accepted = await all_at_once(world, doors, 500)
        assert len(accepted) == 50
        with pytest.raises(LimitExceeded) as refused:
            await world.submit(doors[0])
        assert refused.value.exceeded.by.used == 500 * NANO
        # Each ends having used half of what was reserved; so half as many have room again, and no more.
        for one in accepted:
            await world.end(one, 5)
        use = await world.until(lambda use: use.concurrent == 0)
        assert (use.day_nano_usd, use.month_nano_usd, use.reserved_nano_usd) == (250 * NANO, 250 * NANO, 0)
        assert len(await all_at_once(world, doors, 100)) == 25


@pytest.mark.parametrize("processes", [1, 2, 8])
async def test_the_total_is_the_same_with_any_number_of_processes(
    world: LimitsWorld, database: TestDatabase, bus_address: Address, processes: int
) -> None:
    await world.limit(usd_per_day=Decimal(500))
    given: dict[str, Any] = bus_address | {
        "database": database.role_url("command_api"),
        "redis": world.redis_url,
        "name": world.name,
        "tenant": str(world.tenant_id),
        "key": str(world.principal.key_id),
        "settings": {
            "pools": {"local": {"backend": "scripted", "models": ["priced"]}},
            "prices_file": str(world.prices_file),
            # Eight interpreters that start at once are slow to find their broker.
            "limits": {"publish_s": 30},
        },
        "prompts": 480 // processes,
    }
    async with world.projections():
        children = [
            await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.integration.limits_child", json.dumps(given),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )
            for _ in range(processes)
        ]  # fmt: skip
        try:
            for child in children:
                assert child.stdout is not None
                assert (await child.stdout.readline()).strip() == b"ready"
            told = await asyncio.gather(*(child.communicate(b"go\n") for child in children))
        finally:
            for child in children:
                if child.returncode is None:
                    child.kill()
                    await child.wait()
        assert sum(int(out) for out, _ in told) == 50
        use = await world.until(lambda use: use.concurrent == 50)
        assert use.reserved_nano_usd == 500 * NANO


async def lose(world: LimitsWorld) -> None:
    async with redis.asyncio.Redis.from_url(world.redis_url) as client:
        await client.delete(*[name async for name in client.scan_iter(f"budget:{{{world.name}}}:*")])


async def test_nothing_is_admitted_beyond_the_budget_when_the_counters_are_lost(world: LimitsWorld) -> None:
    await world.limit(usd_per_day=Decimal(500))
    door = await world.door()
    async with world.projections():
        accepted = await all_at_once(world, [door], 40)
        for one in accepted[:20]:
            await world.end(one, 9)
        await lose(world)
        with pytest.raises(BudgetUnavailable):
            await world.submit(door)
        await world.counting()
        use = await world.until(lambda use: use.day_nano_usd == 180 * NANO)
        assert (use.concurrent, use.reserved_nano_usd, use.requests) == (20, 200 * NANO, 40)
        assert len(await all_at_once(world, [door], 100)) == 12
        for one in accepted[20:]:
            await world.end(one, 9)
        use = await world.until(lambda use: use.concurrent == 12)
        assert (use.day_nano_usd, use.reserved_nano_usd) == (360 * NANO, 120 * NANO)


async def test_what_waits_unprojected_keeps_its_money_when_the_counters_are_lost(world: LimitsWorld) -> None:
    await world.limit(concurrent=3)
    door = await world.door()
    async with world.projections():
        await world.submit(door)
    # Nobody projects any more.
    await world.submit(door)
    await lose(world)
    with pytest.raises(BudgetUnavailable):
        await world.submit(door)
    async with world.projections():
        assert (await world.use()).concurrent == 2
        assert len(await all_at_once(world, [door], 5)) == 1


async def test_a_key_that_comes_again_pays_once_and_needs_no_room(world: LimitsWorld) -> None:
    await world.limit(concurrent=1)
    door = await world.door()
    async with world.projections():
        first = await world.submit(door, "once")
        assert await world.submit(door, "once") == first
        assert (await world.use()).requests == 1
        with pytest.raises(LimitExceeded):
            await world.submit(door, "twice")
        await world.end(first, 1)
        await world.until(lambda use: use.concurrent == 0)
        other = await world.submit(door)
        assert await world.submit(door, "once") == first, "it was accepted, whatever the limits say now"
        await world.end(other, 1)
        await world.until(lambda use: use.concurrent == 0)
        assert await world.submit(door, "once") == first
        assert (await world.use()).concurrent == 0


class Faulty:
    """A bus that fails as told, before or after it took a prompt."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.before: Exception | None = None
        self.after: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    async def publish(self, *arguments: Any, **options: Any) -> Any:
        if self.before is not None:
            raise self.before
        await self._bus.publish(*arguments, **options)
        if self.after is not None:
            raise self.after


async def test_what_the_bus_refused_costs_nothing_and_what_nobody_knows_of_stays(
    world: LimitsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("command_api.allowance._CERTAIN_S", 0.0)
    world.settings = world.settings.model_copy(
        update={"limits": world.settings.limits.model_copy(update={"publish_s": 0.5})}
    )
    door = await world.door()
    faulty = Faulty(world.bus)
    monkeypatch.setattr(door, "_bus", faulty)
    async with world.projections():
        faulty.before = MessageTooLarge("too large")
        with pytest.raises(MessageTooLarge):
            await world.submit(door)
        assert (await world.use()).requests == 0
        faulty.before = BusUnavailable("nobody knows")
        with pytest.raises(BusUnavailable):
            await world.submit(door)
        faulty.before, faulty.after = None, BusUnavailable("nobody knows")
        with pytest.raises(BusUnavailable):
            await world.submit(door)
        assert (await world.use()).requests == 2
        # Of these two one was published. The record says which.
        use = await world.until(lambda use: use.concurrent == 1)
        assert use.reserved_nano_usd == 10 * NANO


async def test_a_prompt_without_a_price_is_refused_where_a_limit_of_money_holds(world: LimitsWorld) -> None:
    cloud = PoolSettings(backend="openai", models=("nobody-knows",))
    async with world.projections():
        world.settings = world.settings.model_copy(update={"pools": {**world.settings.pools, "cloud": cloud}})
        await world.limit(requests_per_minute=10, usd_per_month=Decimal(1))
        door = await world.door()
        with pytest.raises(Refused) as refused:
            await door.submit(world.principal, prompt(10, "nobody-knows"), None, None)
        assert refused.value.type == "unknown-price"
