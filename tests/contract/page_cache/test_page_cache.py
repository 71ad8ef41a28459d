"""What is kept of the web for a tenant: for that tenant, and for its while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from backplane.adapters.redis.page_cache import RedisPageCache
from backplane.ports.identifiers import new_id
from backplane.ports.page_cache import PageCache
from tests.conftest import ValkeyServer
from tests.contract.page_cache.memory import MemoryPageCache

URL = "https://example.com/page?a=ü"


@pytest.fixture(params=["memory", "redis"])
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[PageCache]:
    if request.param == "memory":
        yield MemoryPageCache()
        return
    server: ValkeyServer = request.getfixturevalue("valkey_server")
    made = RedisPageCache(server.url)
    yield made
    await made.close()


async def test_a_tenant_gets_what_was_kept_for_it_last(cache: PageCache) -> None:
    mine, theirs = new_id(), new_id()
    assert await cache.get(mine, URL) is None
    await cache.keep(mine, URL, b"first", 60)
    await cache.keep(mine, URL, b"\x00second", 60)
    assert await cache.get(mine, URL) == b"\x00second"
    assert await cache.get(mine, URL + "b") is None
    assert await cache.get(theirs, URL) is None


async def test_it_is_gone_after_its_while_and_when_it_is_dropped(cache: PageCache) -> None:
    mine = new_id()
    await cache.keep(mine, URL, b"page", 0.05)
    async with asyncio.timeout(10):
        while await cache.get(mine, URL) is not None:
            await asyncio.sleep(0.01)
    await cache.keep(mine, URL, b"page", 60)
    await cache.keep(mine, URL, b"", 0)
    assert await cache.get(mine, URL) is None


async def test_without_a_server_nothing_is_kept_and_nothing_raised() -> None:
    nowhere = RedisPageCache("redis://127.0.0.1:1/0")
    await nowhere.keep(new_id(), URL, b"page", 60)
    assert await nowhere.get(new_id(), URL) is None
    await nowhere.close()
