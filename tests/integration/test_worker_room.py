"""Workers whose provider keys have no room: what waits is claimed by nobody, and nothing of it is lost."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from prometheus_client import REGISTRY

import workers.worker
from backplane.adapters.postgres_bus.shared import SharedConsumer
from backplane.adapters.redis.key_room import RedisKeyRoom
from backplane.ports.bus import Message
from backplane.settings.pools import PoolSettings
from event_schemas.generation import (
    AttemptLost,
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
    SubmitPrompt,
)
from tests.conftest import TestDatabase, ValkeyServer
from tests.integration.prompts import scripted
from tests.integration.worker_world import RunningWorker, WorkerWorld
from tests.providers.script import Script
from tests.providers.server import Providers, providers
from workers.inference.openai_chat import OpenAIBackend
from workers.keys import Keys, ProviderKey
from workers.upstream import Upstream

WINDOW_S = 1.5


def prompt() -> SubmitPrompt:
    return scripted().model_copy(update={"model": "gpt-4o-mini"})


def waits_counted() -> float:
    return REGISTRY.get_sample_value("parley_worker_queue_seconds_count", {"pool": prompt().pool}) or 0.0


@dataclass
class Scene:
    world: WorkerWorld
    server: Providers
    backend: OpenAIBackend
    room: RedisKeyRoom
    ring: str

    async def worker(self, name: str, key: str = "a", **settings: Any) -> RunningWorker:
        pool = PoolSettings.model_validate({"backend": "openai", "models": ["gpt-4o-mini"]} | settings)
        keys = Keys(self.ring, pool, [ProviderKey.of(key)], self.room)
        return await self.world.worker(name, slots=8, upstream=Upstream(self.backend, pool, keys))

    async def claimed(self, *prompts: SubmitPrompt) -> int:
        count: int = await self.world.owner.fetchval(
            "SELECT count(*) FROM work.claims WHERE generation_id = ANY($1)", [one.generation_id for one in prompts]
        )
        return count

    async def asked(self, times: int) -> None:
        await self.server.until(lambda: len(self.server.ledger["a"].asked) >= times, within_s=10)


@pytest.fixture
async def scene(database: TestDatabase, valkey_server: ValkeyServer) -> AsyncIterator[Scene]:
    async with providers(window_s=WINDOW_S) as server, WorkerWorld(database, valkey_server.url) as world:
        server.add_key("a")
        backend = OpenAIBackend(server.openai_url, slots=8)
        await backend.start(lambda doing, share: None)
        room = RedisKeyRoom(valkey_server.url, window_s=WINDOW_S)
        yield Scene(world, server, backend, room, secrets.token_hex(4))
        await backend.close()
        await room.close()


async def test_who_finds_no_room_is_not_claimed_and_runs_when_there_is(scene: Scene) -> None:
    await scene.worker("w", requests_per_minute=1)
    prompts = [prompt() for _ in range(3)]
    for one in prompts:
        await scene.world.submit(one)
    await scene.asked(1)
    assert await scene.claimed(*prompts) == 1
    for one in prompts:
        ended = (await scene.world.ended(one)).data
        assert isinstance(ended, GenerationCompleted)
        assert ended.attempt == 1


async def test_an_attempt_that_finds_its_room_gone_was_never_made(scene: Scene) -> None:
    scene.server.queue(Script(fault="429", retry_after=1))
    await scene.worker("w")
    one, before = prompt(), waits_counted()
    await scene.world.submit(one)
    await scene.asked(1)

    async def unclaimed() -> bool:
        return not await scene.claimed(one)

    await scene.world.until(unclaimed, "the claim is given up")
    ended = (await scene.world.ended(one)).data
    assert isinstance(ended, GenerationCompleted)
    assert ended.attempt == 1
    assert not [event for event in await scene.world.events(one) if isinstance(event.data, AttemptLost)]
    assert waits_counted() == before + 1


async def test_what_waits_for_room_can_be_cancelled(scene: Scene) -> None:
    await scene.room.rest(scene.ring, ProviderKey.of("a").id, 60, "rate_limited")
    await scene.worker("w")
    one = prompt()
    await scene.world.submit(one)
    await scene.world.cancel(one)
    ended = (await scene.world.ended(one)).data
    assert isinstance(ended, GenerationCancelled)
    assert ended.attempt == 0


async def test_a_worker_that_closes_gives_back_what_waits_for_room(scene: Scene) -> None:
    one = prompt()
    await scene.room.rest(scene.ring, ProviderKey.of("a").id, 60, "rate_limited")
    closing = await scene.worker("closing")
    await scene.world.submit(one)
    await closing.drain()
    # Another ring: this one's keys have room.
    await replace(scene, ring=f"{scene.ring}-other").worker("stays")
    ended = (await scene.world.ended(one)).data
    assert isinstance(ended, GenerationCompleted)
    assert ended.attempt == 1


async def test_where_no_key_is_any_good_prompts_end_and_say_what_to_do(scene: Scene) -> None:
    await scene.worker("w", key="wrong")
    for _ in range(2):
        one = prompt()
        await scene.world.submit(one)
        ended = (await scene.world.ended(one)).data
        assert isinstance(ended, GenerationFailed)
        assert ended.reason == "no_usable_key"
        assert "give the pool other `keys`" in ended.detail


async def test_a_provider_that_breaks_off_makes_another_attempt_and_each_is_counted(scene: Scene) -> None:
    scene.server.queue(Script(fault="cut", after=3))
    await scene.worker("w")
    one = prompt()
    await scene.world.submit(one)
    ended = (await scene.world.ended(one)).data
    assert isinstance(ended, GenerationCompleted)
    assert ended.attempt == 2
    (row,) = await scene.world.owner.fetch("SELECT count(*) AS lost FROM control.outbox")
    assert row["lost"] == 1


async def test_a_flood_is_not_received_and_put_back_all_the_time(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    put_back: list[tuple[float, float]] = []
    nack = SharedConsumer.nack

    async def noted(self: SharedConsumer, message: Message, *, delay: float = 0.0) -> None:
        began = time.monotonic()
        put_back.append((began, began + delay))
        await nack(self, message, delay=delay)

    monkeypatch.setattr(SharedConsumer, "nack", noted)
    for name, value in (("_MOST_OF_A_TENANT", 2), ("_FLOOD_PAUSE_S", 0.3), ("_MOST_PUT_BACK", 8)):
        monkeypatch.setattr(workers.worker, name, value)
    await scene.room.rest(scene.ring, ProviderKey.of("a").id, 60, "rate_limited")
    for _ in range(60):
        await scene.world.submit(prompt())
    await scene.worker("w")

    async def went_round() -> bool:
        return len(put_back) > 80

    await scene.world.until(went_round, "what was put back came again")
    at_a_time = max(sum(began <= at < ends for began, ends in put_back) for at, _ in put_back)
    assert at_a_time < 8 + 8, "as many as were let in, and what was received with the last of them"
