"""Prompts that their pool cannot serve, and the pool that serves them instead."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

import workers.breaker
from backplane.adapters.redis.key_room import RedisKeyRoom
from backplane.settings.pools import PoolSettings
from event_schemas.generation import (
    AttemptLost,
    Fallback,
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
    SubmitPrompt,
    Terminal,
)
from tests.conftest import TestDatabase, ValkeyServer
from tests.integration.prompts import SPARE, scripted
from tests.integration.worker_world import RunningWorker, WorkerWorld
from tests.providers.script import Fault, Script
from tests.providers.server import Providers, providers
from workers.inference.openai_chat import OpenAIBackend
from workers.keys import Keys, ProviderKey
from workers.upstream import Upstream

ELSEWHERE = (Fallback(pool=SPARE, model="plain"),)


def prompt(*fallbacks: Fallback) -> SubmitPrompt:
    return scripted(fallbacks=fallbacks).model_copy(update={"model": "gpt-4o-mini"})


@dataclass
class Scene:
    world: WorkerWorld
    server: Providers
    backend: OpenAIBackend
    room: RedisKeyRoom
    ring: str

    async def worker(self, key: str = "a", max_attempts: int = 2, **settings: Any) -> RunningWorker:
        given = {"backend": "openai", "models": ["gpt-4o-mini"], "tries": 2} | settings
        pool = PoolSettings.model_validate(given)
        keys = Keys(self.ring, pool, [ProviderKey.of(key)], self.room)
        upstream = Upstream(self.backend, pool, keys)
        return await self.world.worker("first", slots=8, upstream=upstream, max_attempts=max_attempts)

    async def spare(self) -> RunningWorker:
        return await self.world.worker("spare", pool=SPARE)

    async def ended(self, one: SubmitPrompt) -> Terminal:
        """How it ended, with the outbox published meanwhile."""

        async def over() -> bool:
            await self.world.relay()
            terminal = await self.world.owner.fetchval(
                "SELECT terminal IS NOT NULL FROM work.claims WHERE generation_id = $1", one.generation_id
            )
            return bool(terminal)

        await self.world.until(over, "it ended")
        data = (await self.world.ended(one)).data
        assert isinstance(data, GenerationCompleted | GenerationFailed | GenerationCancelled)
        return data

    async def lost(self, one: SubmitPrompt) -> list[AttemptLost]:
        await self.world.relay()
        said = [event.data for event in await self.world.events(one)]
        return sorted((data for data in said if isinstance(data, AttemptLost)), key=lambda lost: lost.attempt)

    def asked(self) -> int:
        return len(self.server.ledger["a"].asked)


@pytest.fixture
async def scene(database: TestDatabase, valkey_server: ValkeyServer) -> AsyncIterator[Scene]:
    async with providers() as server, WorkerWorld(database, valkey_server.url) as world:
        server.add_key("a")
        backend = OpenAIBackend(server.openai_url, slots=8)
        await backend.start(lambda doing, share: None)
        room = RedisKeyRoom(valkey_server.url)
        yield Scene(world, server, backend, room, secrets.token_hex(4))
        await backend.close()
        await room.close()


async def test_what_a_provider_does_not_serve_another_pool_serves(scene: Scene) -> None:
    scene.server.default = Script(fault="500")
    await scene.worker()
    await scene.spare()
    one = prompt(*ELSEWHERE)
    await scene.world.submit(one)
    ended = await scene.ended(one)
    assert isinstance(ended, GenerationCompleted)
    assert (ended.attempt, ended.model) == (2, "gpt-4o-mini"), "the model is named as it was asked for"
    assert ended.served is not None
    assert (ended.served.pool, ended.served.model) == (SPARE, "plain")
    (lost,) = await scene.lost(one)
    assert (lost.attempt, lost.usage.input_tokens, lost.usage.source) == (1, 0, "provider"), "nobody worked on it"
    assert scene.asked() == 2


@pytest.mark.parametrize("fault", ["404", "context"])
async def test_what_this_model_refuses_another_may_take(scene: Scene, fault: Fault) -> None:
    scene.server.default = Script(fault=fault)
    await scene.worker()
    await scene.spare()
    one = prompt(*ELSEWHERE)
    await scene.world.submit(one)
    ended = await scene.ended(one)
    assert isinstance(ended, GenerationCompleted)
    assert ended.served is not None
    assert ended.served.pool == SPARE
    alone = prompt()
    await scene.world.submit(alone)
    assert isinstance(await scene.ended(alone), GenerationFailed)


async def test_what_nobody_can_serve_is_not_handed_on(scene: Scene) -> None:
    scene.server.default = Script(fault="400")
    await scene.worker()
    one = prompt(*ELSEWHERE)
    await scene.world.submit(one)
    ended = await scene.ended(one)
    assert isinstance(ended, GenerationFailed)
    assert ended.reason == "invalid_request"


async def test_where_no_key_is_any_good_the_next_pool_is_asked(scene: Scene) -> None:
    await scene.worker(key="wrong")
    await scene.spare()
    for _ in range(2):  # the second one finds the key put aside
        one = prompt(*ELSEWHERE)
        await scene.world.submit(one)
        ended = await scene.ended(one)
        assert isinstance(ended, GenerationCompleted)
        assert ended.attempt == 2
    assert len(scene.server.ledger["wrong"].asked) == 1


async def test_what_broke_off_is_tried_again_here_before_it_goes_elsewhere(scene: Scene) -> None:
    # Not "cut": a client that hears of the end in the same moment as of the tokens may drop these.
    scene.server.default = Script(fault="truncated", after=3)
    await scene.worker(max_attempts=2)
    await scene.spare()
    one = prompt(*ELSEWHERE)
    await scene.world.submit(one)
    ended = await scene.ended(one)
    assert isinstance(ended, GenerationCompleted)
    assert ended.attempt == 3
    lost = await scene.lost(one)
    assert [(each.attempt, each.usage.source) for each in lost] == [(1, "estimated"), (2, "estimated")]
    assert [each.usage.output_tokens for each in lost] == [3, 3]
    assert all(each.served and each.served.model == "gpt-4o-mini" for each in lost)


async def test_a_pool_down_the_chain_has_attempts_of_its_own(scene: Scene) -> None:
    scene.server.default = Script(fault="cut", after=3)
    await scene.worker(max_attempts=2)
    await scene.world.worker("spare", pool=SPARE, max_attempts=2)
    broken, whole = {"fail_after": 1}, {"count": 5}
    one = scripted(broken, broken, broken, whole, fallbacks=ELSEWHERE).model_copy(update={"model": "gpt-4o-mini"})
    await scene.world.submit(one)
    ended = await scene.ended(one)
    assert isinstance(ended, GenerationCompleted)
    assert ended.attempt == 4


async def test_at_the_end_of_the_chain_it_has_failed(scene: Scene) -> None:
    scene.server.default = Script(fault="500")
    await scene.worker()
    await scene.world.worker("spare", pool=SPARE, max_attempts=1)
    one = scripted({"fail_after": 0}, fallbacks=ELSEWHERE).model_copy(update={"model": "gpt-4o-mini"})
    await scene.world.submit(one)
    ended = await scene.ended(one)
    assert isinstance(ended, GenerationFailed)
    assert ended.reason == "attempts_exhausted"
    assert [lost.served and lost.served.pool for lost in await scene.lost(one)] == ["p", SPARE]


async def test_a_long_rest_is_not_waited_for_and_a_short_one_is(scene: Scene) -> None:
    await scene.worker(give_up_s=2)
    await scene.spare()
    key = ProviderKey.of("a").id
    await scene.room.rest(scene.ring, key, 0.5, "rate_limited")
    waits = prompt(*ELSEWHERE)
    await scene.world.submit(waits)
    ended = await scene.ended(waits)
    assert ended.served is not None
    assert (ended.attempt, ended.served.model) == (1, "gpt-4o-mini")
    await scene.room.rest(scene.ring, key, 60, "rate_limited")
    goes = prompt(*ELSEWHERE)
    await scene.world.submit(goes)
    ended = await scene.ended(goes)
    assert ended.served is not None
    assert ended.served.pool == SPARE


async def test_a_provider_that_fails_again_and_again_is_not_asked_for_a_while(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.breaker, "_FIRST_REST_S", 60.0)
    scene.server.default = Script(fault="500")
    await scene.worker(tries=1, max_attempts=20)
    await scene.spare()
    for _ in range(7):
        one = prompt(*ELSEWHERE)
        await scene.world.submit(one)
        assert isinstance(await scene.ended(one), GenerationCompleted)
    assert scene.asked() == 5, "then its only key is left alone, and prompts go on at once"


async def test_without_a_fallback_a_prompt_waits_for_the_probe(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.breaker, "_FIRST_REST_S", 1.0)
    scene.server.default = Script(fault="500")
    await scene.worker(tries=1)
    await scene.spare()
    for _ in range(5):
        one = prompt(*ELSEWHERE)
        await scene.world.submit(one)
        assert isinstance(await scene.ended(one), GenerationCompleted)
    waits = prompt()
    await scene.world.submit(waits)
    scene.server.default = Script()
    ended = await scene.ended(waits)
    assert isinstance(ended, GenerationCompleted)
    assert ended.attempt == 1


async def test_what_waits_for_its_next_pool_can_be_cancelled(scene: Scene) -> None:
    scene.server.default = Script(fault="500")
    await scene.worker()
    one = prompt(*ELSEWHERE)
    await scene.world.submit(one)

    async def handed_on() -> bool:
        times = await scene.world.owner.fetchval(
            "SELECT handed_on FROM work.claims WHERE generation_id = $1", one.generation_id
        )
        return bool(times)

    await scene.world.until(handed_on, "it is handed on")
    await scene.world.cancel(one)
    ended = await scene.ended(one)
    assert isinstance(ended, GenerationCancelled)
    assert ended.served is None
    assert len(await scene.lost(one)) == 1


async def test_a_pool_whose_workers_are_lost_gives_way(scene: Scene) -> None:
    lost = await scene.world.worker("lost", max_attempts=1)
    one = scripted({"hang_after": 2}, {"count": 3}, fallbacks=ELSEWHERE)
    await scene.world.submit(one)

    async def began() -> bool:
        return await scene.world.tokens(one) == 2

    await scene.world.until(began, "two tokens came")
    await lost.vanish()
    await scene.world.worker("next", max_attempts=1)
    await scene.spare()
    ended = await scene.ended(one)
    assert isinstance(ended, GenerationCompleted)
    assert ended.served is not None
    assert (ended.attempt, ended.served.pool) == (2, SPARE)
    (attempt,) = await scene.lost(one)
    assert attempt.usage.output_tokens == 2


async def test_a_pool_may_name_another_model_of_its_own(scene: Scene) -> None:
    scene.server.queue(Script(fault="404"))
    await scene.worker()
    one = prompt(Fallback(pool="p", model="gpt-4o-mini"))
    await scene.world.submit(one)
    ended = await scene.ended(one)
    assert isinstance(ended, GenerationCompleted)
    assert ended.attempt == 2


async def test_who_may_go_elsewhere_does_not_wait_behind_who_may_not(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.breaker, "_FIRST_REST_S", 60.0)
    scene.server.default = Script(fault="500")
    await scene.worker(tries=20)
    await scene.spare()
    waits, goes = prompt(), prompt(*ELSEWHERE)
    await scene.world.submit(waits)

    async def is_left_alone() -> bool:
        claims = await scene.world.owner.fetchval("SELECT count(*) FROM work.claims")
        return scene.asked() == 5 and claims == 0

    await scene.world.until(is_left_alone, "the key is left alone, and the prompt waits")
    await scene.world.submit(goes)
    ended = await scene.ended(goes)
    assert isinstance(ended, GenerationCompleted)
    assert scene.asked() == 5, "before anybody tried the key again"
