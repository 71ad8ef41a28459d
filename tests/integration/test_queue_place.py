"""Where a queued prompt stands among those of all tenants."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from backplane.adapters.redis.key_room import RedisKeyRoom
from backplane.ports.identifiers import new_id
from backplane.ports.key_room import Full, KeyLimits, Taken, ring_of
from tests.conftest import TestDatabase, ValkeyServer
from tests.integration.query_world import Caller, World, events, generation, serving


@pytest.fixture
async def world(database: TestDatabase, valkey_server: ValkeyServer) -> AsyncIterator[World]:
    async with serving(database, valkey_server.url) as made:
        yield made


@pytest.fixture
def pool() -> str:
    return f"pool-{secrets.token_hex(4)}"


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


async def tenant(world: World, weight: int = 1, priority: str = "normal") -> Caller:
    id = new_id()
    await world.owner.execute(
        "INSERT INTO control.tenants (tenant_id, name, weight, priority) VALUES ($1, 'a', $2, $3)", id, weight, priority
    )
    return await world.caller(id, "member")


async def queued(world: World, caller: Caller, pool: str, *ages_s: float) -> list[UUID]:
    return [await generation(world, caller, pool=pool, created_at=ago(age_s)) for age_s in ages_s]


async def place(caller: Caller, generation_id: UUID) -> Any:
    response = await caller.get(f"/v1/generations/{generation_id}")
    assert response.status_code == 200, response.text
    return response.json()["queue"]


async def ahead(caller: Caller, generation_id: UUID) -> int:
    found: int = (await place(caller, generation_id))["ahead"]
    return found


async def test_ahead_are_earlier_ones_of_its_tenant_and_turns_of_the_others(world: World, pool: str) -> None:
    flood, light = await tenant(world), await tenant(world)
    ids = await queued(world, flood, pool, *range(50, 10, -1))
    await queued(world, flood, "another pool", 60)
    (one,) = await queued(world, light, pool, 1)
    # One of the flood's goes before it, and it before all but the first of the flood's.
    assert await ahead(light, one) == 1
    assert [await ahead(flood, id) for id in (ids[0], ids[1], ids[39])] == [1, 2, 40]


@pytest.mark.parametrize(
    ("weight", "priority", "before_the_third"),
    [(3, "normal", 1), (1, "normal", 3), (1, "high", 0), (1, "low", 27)],
)
async def test_ahead_goes_by_shares(world: World, pool: str, weight: int, priority: str, before_the_third: int) -> None:
    flood, mine = await tenant(world), await tenant(world, weight, priority)
    await queued(world, flood, pool, *range(100, 60, -1))
    ids = await queued(world, mine, pool, 3, 2, 1)
    assert await ahead(mine, ids[2]) == 2 + before_the_third


async def test_the_pace_is_that_of_the_pool_since_something_waits(world: World, pool: str) -> None:
    mine, other = await tenant(world), await tenant(world)
    (one,) = await queued(world, mine, pool, 20)
    assert await place(mine, one) == {"ahead": 0, "estimated_wait_s": None}
    for age_s in (1, 5, 10, 15, 30, 90):
        await generation(
            world, other, pool=pool, status="completed", attempt=1, started_at=ago(age_s + 1), ended_at=ago(age_s)
        )
    # Cancelled before it had begun, it left no slot.
    await generation(world, other, pool=pool, status="cancelled", attempt=0, ended_at=ago(2))
    assert (await place(mine, one))["estimated_wait_s"] == pytest.approx(20 / 4, abs=1)
    async with asyncio.timeout(20), mine.http.stream("GET", f"/v1/generations/{one}/stream") as response:
        told = await anext(events(response))
    assert told.name == "queued"
    assert told.data == {"ahead": 0, "estimated_wait_s": pytest.approx(20 / 4, abs=1)}


async def test_with_full_windows_the_last_minutes_starts_come_again(
    world: World, pool: str, valkey_server: ValkeyServer
) -> None:
    mine, other = await tenant(world), await tenant(world)
    ids = await queued(world, mine, pool, 9, 8, 7)
    await generation(world, other, pool=pool, status="running", attempt=1, started_at=ago(50))
    await generation(world, other, pool=pool, status="completed", attempt=1, started_at=ago(20), ended_at=ago(19))
    room = RedisKeyRoom(valkey_server.url)
    key = KeyLimits("k", requests_per_minute=1)
    taken = await room.take(pool, [key], 1)
    assert isinstance(taken, Taken)
    await room.counted(taken)
    assert isinstance(await room.take(pool, [key], 1), Full)
    # Its window is full for a minute, whatever was started before.
    assert [(await place(mine, id))["estimated_wait_s"] for id in ids] == [
        pytest.approx(60, abs=3),
        pytest.approx(60, abs=3),
        pytest.approx(60 + 10, abs=3),
    ]
    await room.close()


async def test_only_what_is_queued_has_a_place(world: World, pool: str) -> None:
    mine = await tenant(world)
    for status in ("running", "completed"):
        assert await place(mine, await generation(world, mine, pool=pool, status=status, attempt=1)) is None
    (one,) = await queued(world, mine, pool, 1)
    assert (await place(mine, one))["ahead"] == 0


async def test_who_has_keys_of_its_own_waits_for_nobody_else(
    world: World, pool: str, valkey_server: ValkeyServer
) -> None:
    own, other = await tenant(world), await tenant(world)
    await world.owner.execute(
        "INSERT INTO control.provider_keys (key_id, tenant_id, pool, name, fingerprint, sealed)"
        " VALUES ($1, $2, $3, '', 'f', 'x')",
        *(new_id(), own.tenant_id, pool),
    )
    ours = await queued(world, own, pool, 30, 20)
    (theirs,) = await queued(world, other, pool, 10)
    assert [await ahead(own, id) for id in ours] == [0, 1]
    assert await ahead(other, theirs) == 0
    for caller in (own, other):
        await generation(world, caller, pool=pool, status="completed", attempt=1, started_at=ago(6), ended_at=ago(5))
    room = RedisKeyRoom(valkey_server.url)
    key = KeyLimits("k")
    ring = ring_of(pool, own.tenant_id)
    await room.rest(ring, "k", 300, "rate_limited")
    assert isinstance(await room.take(ring, [key], 1), Full)
    await room.close()
    assert (await place(own, ours[0]))["estimated_wait_s"] == pytest.approx(300 + 30, abs=3)
    assert (await place(other, theirs))["estimated_wait_s"] == pytest.approx(10, abs=3)
