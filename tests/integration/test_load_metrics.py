"""What an autoscaler sees of a pool."""

from __future__ import annotations

import asyncio
import secrets

from prometheus_client import REGISTRY

from backplane.adapters.redis.key_room import RedisKeyRoom
from backplane.ports.identifiers import new_id
from backplane.settings.pools import PoolSettings
from event_schemas.envelope import PLATFORM
from tests.conftest import TestDatabase, ValkeyServer
from tests.integration.prompts import POOL, scripted
from tests.integration.worker_world import WorkerWorld
from workers.inference.scripted import ScriptedBackend
from workers.keys import Keys, ProviderKey
from workers.load import measure
from workers.upstream import Upstream


async def test_backlog_age_and_room_are_told(database: TestDatabase, valkey_server: ValkeyServer) -> None:
    settings = PoolSettings.model_validate({"backend": "openai", "models": ["m"], "requests_per_minute": 5})
    key, room = ProviderKey.of(secrets.token_hex(4)), RedisKeyRoom(valkey_server.url)
    keys = Keys(secrets.token_hex(4), settings, [key], room)
    upstream = Upstream(ScriptedBackend(slots=1), settings, keys)
    added = ProviderKey.of(secrets.token_hex(4))
    keys.use({PLATFORM: [added], new_id(): [ProviderKey.of("a tenant's")]})
    async with WorkerWorld(database, valkey_server.url) as world:
        for _ in range(3):
            await world.submit(scripted())
        permit = await upstream.permit(new_id(), 1)
        measuring = asyncio.create_task(measure(POOL, world.bus, upstream, lambda: 7.5, every_s=0.01))

        def told(name: str, **labels: str) -> float | None:
            return REGISTRY.get_sample_value(name, {"pool": POOL} | labels)

        async def all_is_told() -> bool:
            return (
                told("parley_pool_backlog") == 3
                and told("parley_pool_oldest_waiting_seconds") == 7.5
                and told("parley_key_requests_left", key=key.id) == 4
                and told("parley_key_running", key=key.id) == 1
                and told("parley_key_resting_seconds", key=key.id) == 0
                and told("parley_key_requests_left", key=added.id) == 5
            )

        async def retired() -> bool:
            return told("parley_key_requests_left", key=added.id) is None

        await world.until(all_is_told, "the gauges")
        keys.use({})
        await world.until(retired, "a retired key is told of no more")
        assert told("parley_key_requests_left", key=ProviderKey.of("a tenant's").id) is None
        measuring.cancel()
        await asyncio.gather(measuring, return_exceptions=True)
        await upstream.give_back(permit)
    await room.close()
