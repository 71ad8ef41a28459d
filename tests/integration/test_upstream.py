"""Asking a provider with a pool of keys: real counters, a real SDK, and a provider that fails in every way."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import pytest

from backplane.adapters.redis.key_room import RedisKeyRoom
from backplane.ports.key_room import Full
from backplane.settings.pools import PoolSettings
from event_schemas.control_plane import ProviderKeySetAside
from event_schemas.envelope import PLATFORM
from event_schemas.generation import Parameters
from tests.conftest import ValkeyServer
from tests.contract.inference.requests import request
from tests.providers.script import Script
from tests.providers.server import Providers, providers
from workers.breaker import FAILURES
from workers.inference.openai_chat import OpenAIBackend
from workers.inference.port import BackendUnavailable, Delta, Finished, NotServed, RequestRefused
from workers.keys import Keys, Permit, ProviderKey
from workers.upstream import NoRoom, Upstream, whole

TENANT = UUID(int=1)
WINDOW_S = 1.0


@dataclass
class Pool:
    """A pool named like no other, as one worker has it."""

    server: Providers
    backend: OpenAIBackend
    room: RedisKeyRoom
    name: str
    news: list[ProviderKeySetAside] = field(default_factory=list)

    async def announce(self, owner: UUID, news: ProviderKeySetAside) -> None:
        assert owner == PLATFORM
        self.news.append(news)

    def upstream(self, *keys: str, **settings: Any) -> Upstream:
        described = PoolSettings.model_validate({"backend": "openai", "models": ["gpt-4o-mini"]} | settings)
        return Upstream(
            self.backend,
            described,
            Keys(self.name, described, [ProviderKey.of(key) for key in keys], self.room),
            self.announce,
        )

    async def resting(self, *keys: str) -> list[str | None]:
        return [state.reason for state in await self.upstream(*keys).look()]


@pytest.fixture
async def pool(valkey_server: ValkeyServer) -> AsyncIterator[Pool]:
    room = RedisKeyRoom(valkey_server.url, window_s=WINDOW_S)
    async with providers(window_s=WINDOW_S) as server:
        backend = OpenAIBackend(server.openai_url, slots=16)
        await backend.start(lambda doing, share: None)
        for key in ("a", "b"):
            server.add_key(key)
        yield Pool(server, backend, room, secrets.token_hex(4))
        await backend.close()
    await room.close()


async def answer(upstream: Upstream) -> str:
    """The text of an answer that came to its end."""
    permit = await upstream.permit(TENANT, 20)
    text, ended = "", False
    wanted = replace(request(parameters=Parameters()), model="gpt-4o-mini")
    async with asyncio.timeout(20), aclosing(upstream.answer(wanted, TENANT, 20, permit)) as items:
        async for item in items:
            text += item.text if isinstance(item, Delta) else ""
            ended = isinstance(item, Finished)
    assert ended
    return text


async def test_a_provider_that_fails_is_asked_again(pool: Pool) -> None:
    upstream = pool.upstream("a")
    pool.server.queue(Script(fault="500"), Script(fault="503"))
    assert await answer(upstream)
    assert [entry.outcome for entry in pool.server.ledger["a"].asked] == ["failed", "failed", "finished"]


async def test_after_so_many_tries_it_is_given_up(pool: Pool) -> None:
    upstream = pool.upstream("a", tries=3)
    pool.server.queue(*[Script(fault="500")] * 5)
    with pytest.raises(NotServed):
        await answer(upstream)
    assert len(pool.server.ledger["a"].asked) == 3


async def test_a_key_without_room_rests_and_another_is_asked_at_once(pool: Pool) -> None:
    upstream = pool.upstream("a", "b")
    for key in ("a", "b"):  # twice: one may ask before the other has said that the key rests
        pool.server.queue(*[Script(fault="429", retry_after=30)] * 2, key=key)
    assert await asyncio.gather(*(answer_or_no_room(upstream) for _ in range(2))) == ["no room"] * 2
    assert await pool.resting("a", "b") == ["rate_limited"] * 2
    assert isinstance(full := await upstream.permit(TENANT, 20), Full)
    assert 20 < full.wait_s <= 30
    assert not full.refused


async def answer_or_no_room(upstream: Upstream) -> str:
    try:
        return await answer(upstream)
    except NoRoom:
        return "no room"


async def test_an_attempt_that_asks_twice_waits_for_room_as_long_as_the_pool_allows(pool: Pool) -> None:
    upstream = pool.upstream("a", concurrency=1, give_up_s=10)
    wanted = replace(request(parameters=Parameters()), model="gpt-4o-mini")
    text, finished = await whole(upstream.answer(wanted, TENANT, 20, await upstream.permit(TENANT, 20)))
    assert text
    assert finished.output_tokens
    taken = await upstream.permit(TENANT, 20)
    assert isinstance(taken, Permit)
    again = asyncio.create_task(upstream.permit_again(TENANT, 20))
    await asyncio.sleep(0)
    assert not again.done()
    await upstream.give_back(taken)
    found = await asyncio.wait_for(again, 20)
    assert isinstance(found, Permit)
    await upstream.give_back(found)
    pool.server.queue(Script(fault="429", retry_after=30))
    assert await answer_or_no_room(upstream) == "no room"
    with pytest.raises(BackendUnavailable) as error:
        await upstream.permit_again(TENANT, 20)
    assert error.value.reason == "no_room"
    assert not isinstance(error.value, NotServed), "what was used before it is counted"


async def test_a_key_that_is_refused_is_put_aside(pool: Pool) -> None:
    upstream = pool.upstream("wrong", "b")
    assert all(await asyncio.gather(*(answer(upstream) for _ in range(4))))
    assert await pool.resting("wrong", "b") == ["key_refused", None]
    (news,) = pool.news
    assert (news.key_id, news.pool, news.reason) == (ProviderKey.of("wrong").id, pool.name, "key_refused")
    asked = len(pool.server.ledger["wrong"].asked)
    assert await answer(upstream)
    assert len(pool.server.ledger["wrong"].asked) == asked, "it is not asked again"


async def test_where_no_key_is_any_good_the_prompt_ends_and_says_so(pool: Pool) -> None:
    upstream = pool.upstream("wrong")
    with pytest.raises(RequestRefused, match=f"none of the keys of pool '{pool.name}'") as refused:
        await answer(upstream)
    assert refused.value.reason == "no_usable_key"
    leave = await upstream.permit(TENANT, 20)
    assert isinstance(leave, Full)
    assert leave.refused
    with pytest.raises(RequestRefused):
        await answer(upstream)


async def test_limits_are_learnt_from_the_provider(pool: Pool) -> None:
    pool.server.add_key("limited", requests_per_minute=3)
    upstream = pool.upstream("limited")
    assert await answer(upstream)
    others = [await upstream.permit(TENANT, 20) for _ in range(4)]
    assert [isinstance(one, Permit) for one in others] == [True, True, False, False]


async def test_what_may_have_been_begun_is_not_asked_again(pool: Pool) -> None:
    upstream = pool.upstream("a")
    for fault in ("cut_early", "cut", "stream_error"):
        pool.server.queue(Script(fault=fault))
        with pytest.raises(BackendUnavailable) as broken:
            await answer(upstream)
        assert not isinstance(broken.value, NotServed)
    assert len(pool.server.ledger["a"].asked) == 3


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("hang_early", "first_token_timeout"), ("hang", "first_token_timeout"), ("stall", "token_gap_timeout")],
)
async def test_nobody_waits_for_tokens_for_ever(pool: Pool, fault: Any, reason: str) -> None:
    upstream = pool.upstream("a", first_token_s=0.3, gap_s=0.2)
    pool.server.queue(Script(fault=fault))
    with pytest.raises(BackendUnavailable) as late:
        await answer(upstream)
    assert late.value.reason == reason
    await pool.server.until(lambda: pool.server.ledger["a"].running == 0)


async def test_a_key_that_fails_again_and_again_is_left_alone(pool: Pool) -> None:
    upstream = pool.upstream("a", "b", tries=1)
    pool.server.queue(*[Script(fault="500")] * FAILURES, key="a")
    for _ in range(4 * FAILURES):
        try:
            await answer(upstream)
        except NotServed:
            continue
    assert [entry.outcome for entry in pool.server.ledger["a"].asked].count("failed") == FAILURES
    asked = len(pool.server.ledger["a"].asked)
    for _ in range(4):
        await answer(upstream)
    assert len(pool.server.ledger["a"].asked) == asked


async def test_room_is_free_again_however_it_ended(pool: Pool) -> None:
    upstream = pool.upstream("a", concurrency=1, tries=1)
    pool.server.queue(Script(), Script(fault="500"), Script(fault="cut"))
    for _ in range(3):
        try:
            await answer(upstream)
        except BackendUnavailable:
            continue
    permit = await upstream.permit(TENANT, 20)
    assert isinstance(permit, Permit)
    await upstream.give_back(permit)
    (state,) = await upstream.look()
    assert (state.requests, state.running) == (3, 0)


async def test_what_was_used_is_counted_against_the_keys_tokens(pool: Pool) -> None:
    upstream = pool.upstream("a", tokens_per_minute=10_000)
    pool.server.queue(Script(words=7))
    await answer(upstream)
    (state,) = await upstream.look()
    account = pool.server.ledger["a"]
    assert state.tokens == account.input_tokens + account.output_tokens


async def test_a_provider_that_fails_with_every_key_is_left_alone(pool: Pool) -> None:
    keys = [f"k{number}" for number in range(4 * FAILURES)]
    for key in keys:
        pool.server.add_key(key)
    pool.server.default = Script(fault="500")
    upstream = pool.upstream(*keys, tries=1)
    for _ in range(2 * FAILURES):
        with pytest.raises(NotServed):
            await answer(upstream)
    leave = await upstream.permit(TENANT, 20)
    assert isinstance(leave, Full)
    assert leave.failing
    assert upstream.is_away(leave)
    assert sum(len(pool.server.ledger[key].asked) for key in keys) == 2 * FAILURES
