"""Counters that are not those of this very run of the server admit nothing, empty or old."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis.asyncio

from backplane.adapters.redis.budget import RedisBudget
from backplane.ports.budget import CountersLost
from tests.conftest import ValkeyServer, start_valkey
from tests.contract.budget.test_budget import limited, reservation


@pytest.fixture
def own_valkey(short_folder: Path, request: pytest.FixtureRequest) -> Iterator[ValkeyServer]:
    running = start_valkey(short_folder / request.node.name[-20:])
    yield running
    running.server.stop()


@pytest.mark.parametrize("snapshot", [False, True])
async def test_a_server_that_came_back(own_valkey: ValkeyServer, snapshot: bool) -> None:
    budget = RedisBudget(own_valkey.url)
    await budget.finish(await budget.begin())
    await budget.reserve(reservation(), limited(), publish_s=5)
    async with redis.asyncio.Redis.from_url(own_valkey.url) as client:
        if snapshot:
            await client.save()
            await budget.reserve(reservation(), limited(), publish_s=5)
    own_valkey.server.kill()
    own_valkey.server.start()
    async with redis.asyncio.Redis.from_url(own_valkey.url) as client:
        assert bool(await client.keys("budget:*")) == snapshot
    with pytest.raises(CountersLost):
        await budget.reserve(reservation(), limited(), publish_s=5)
    await budget.finish(await budget.begin())
    assert {use.requests for use in await budget.look([scope for scope, _ in limited()])} == {0}
    await budget.close()


async def test_counters_that_somebody_flushed(own_valkey: ValkeyServer) -> None:
    budget = RedisBudget(own_valkey.url)
    await budget.finish(await budget.begin())
    async with redis.asyncio.Redis.from_url(own_valkey.url) as client:
        await client.flushall()
    with pytest.raises(CountersLost):
        await budget.counts()
    await budget.close()
