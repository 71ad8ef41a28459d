"""Room of provider keys, on a real server, with windows short enough to wait for."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator

import pytest
import redis.asyncio

from backplane.adapters.redis.key_room import RedisKeyRoom
from backplane.ports.key_room import Full, KeyLimits, RoomUnavailable, Taken
from tests.conftest import ValkeyServer

WINDOW_S = 0.4
LEASE_S = 0.3


@pytest.fixture
async def room(valkey_server: ValkeyServer) -> AsyncIterator[RedisKeyRoom]:
    made = RedisKeyRoom(valkey_server.url, window_s=WINDOW_S, lease_s=LEASE_S)
    yield made
    await made.close()


@pytest.fixture
def ring() -> str:
    return secrets.token_hex(4)


async def taken(room: RedisKeyRoom, ring: str, *keys: KeyLimits, tokens: int = 1) -> Taken:
    answer = await room.take(ring, keys, tokens)
    assert isinstance(answer, Taken), answer
    return answer


async def full(room: RedisKeyRoom, ring: str, *keys: KeyLimits, tokens: int = 1) -> float:
    answer = await room.take(ring, keys, tokens)
    assert isinstance(answer, Full), answer
    return answer.wait_s


async def in_the_end(room: RedisKeyRoom, ring: str, *keys: KeyLimits, tokens: int = 1) -> tuple[Taken, float]:
    """Takes as soon as there is room. Returns the seconds that it took, too."""
    began = time.monotonic()
    async with asyncio.timeout(10):
        while isinstance(answer := await room.take(ring, keys, tokens), Full):
            await asyncio.sleep(answer.wait_s)
    return answer, time.monotonic() - began


async def test_others_see_that_a_ring_is_shut_and_why(room: RedisKeyRoom, ring: str) -> None:
    key = KeyLimits("a", requests_per_minute=1)
    assert await room.shut(ring) is None
    first = await taken(room, ring, key)
    await full(room, ring, key)
    assert await room.shut(ring) is None, "it is open again in a moment, for all that anybody knows"
    await room.counted(first)
    wait_s = await full(room, ring, key)
    shut = await room.shut(ring)
    assert shut is not None
    assert not shut.rests
    assert 0 < shut.seconds <= wait_s
    await in_the_end(room, ring, key)
    assert await room.shut(ring) is None
    await room.rest(ring, "a", 60, "rate_limited")
    await full(room, ring, key)
    shut = await room.shut(ring)
    assert shut is not None
    assert shut.rests
    assert shut.seconds == pytest.approx(60, abs=5)
    await room.rest(ring, "a", 120, "nothing_left")
    await full(room, ring, key)
    shut = await room.shut(ring)
    assert shut is not None
    assert not shut.rests, "the provider says that its window is full"


async def test_requests_fill_the_window_until_they_leave_it(room: RedisKeyRoom, ring: str) -> None:
    key = KeyLimits("a", requests_per_minute=2)
    first = await taken(room, ring, key)
    await room.counted(first)
    began = time.monotonic()
    await room.done(first, 1)
    await taken(room, ring, key)
    assert 0 < await full(room, ring, key) <= WINDOW_S + 0.01
    _, waited = await in_the_end(room, ring, key)
    assert time.monotonic() - began >= WINDOW_S - 0.01
    assert waited < 5 * WINDOW_S


async def test_the_window_begins_when_the_provider_has_counted(room: RedisKeyRoom, ring: str) -> None:
    key = KeyLimits("a", requests_per_minute=1)
    slow = await taken(room, ring, key)
    async with asyncio.timeout(5):
        # The request is on its way for longer than a window, its lease renewed all the while.
        until = time.monotonic() + 1.5 * WINDOW_S
        while time.monotonic() < until:
            assert await full(room, ring, key) > 0
            await room.renew([slow])
    await room.counted(slow)
    counted = time.monotonic()
    await room.done(slow, 1)
    await in_the_end(room, ring, key)
    assert time.monotonic() - counted >= WINDOW_S - 0.01


async def test_what_was_never_sent_takes_no_room(room: RedisKeyRoom, ring: str) -> None:
    key = KeyLimits("a", requests_per_minute=1, tokens_per_minute=10, concurrency=1)
    await room.give_back(await taken(room, ring, key, tokens=10))
    await taken(room, ring, key, tokens=10)


async def test_tokens_are_reserved_and_settled(room: RedisKeyRoom, ring: str) -> None:
    key = KeyLimits("a", tokens_per_minute=100)
    first = await taken(room, ring, key, tokens=60)
    assert await full(room, ring, key, tokens=60) > 0
    await room.done(first, 10)
    second = await taken(room, ring, key, tokens=60)
    await room.done(second, 95)
    (state,) = await room.look(ring, [key])
    assert (state.tokens, state.requests, state.running) == (105, 2, 0)
    assert await full(room, ring, key, tokens=1) > 0
    await in_the_end(room, ring, key, tokens=60)


async def test_a_request_larger_than_the_whole_limit_goes_alone(room: RedisKeyRoom, ring: str) -> None:
    key = KeyLimits("a", tokens_per_minute=100)
    large = await taken(room, ring, key, tokens=500)
    assert await full(room, ring, key, tokens=1) > 0
    await room.done(large, 500)
    await in_the_end(room, ring, key, tokens=500)


async def test_concurrency_is_freed_by_done_and_by_a_lost_worker(room: RedisKeyRoom, ring: str) -> None:
    key = KeyLimits("a", concurrency=1)
    first = await taken(room, ring, key)
    assert await full(room, ring, key) > 0
    await room.done(first, 1)
    await taken(room, ring, key)
    _, waited = await in_the_end(room, ring, key)
    assert waited >= LEASE_S - 0.05


async def test_the_key_with_most_room_is_taken(room: RedisKeyRoom, ring: str) -> None:
    keys = KeyLimits("a", requests_per_minute=4), KeyLimits("b", requests_per_minute=8)
    got = [(await taken(room, ring, *keys)).key_id for _ in range(12)]
    assert got[:3] == ["a", "b", "b"]
    assert (got.count("a"), got.count("b")) == (4, 8)
    assert await full(room, ring, *keys) > 0


async def test_without_any_limit_the_least_busy_is_taken(room: RedisKeyRoom, ring: str) -> None:
    keys = KeyLimits("a"), KeyLimits("b")
    assert sorted([(await taken(room, ring, *keys)).key_id for _ in range(6)]) == ["a"] * 3 + ["b"] * 3


async def test_nobody_waits_behind_a_resting_key(room: RedisKeyRoom, ring: str) -> None:
    keys = KeyLimits("a"), KeyLimits("b")
    assert await room.rest(ring, "a", 60, "rate_limited")
    assert not await room.rest(ring, "a", 1, "rate_limited"), "it rested longer already"
    assert not await room.rest(ring, "a", 60, "rate_limited"), "that it rests was known"
    assert await room.rest(ring, "a", 90, "key_refused"), "the reason is news"
    assert not await room.rest(ring, "a", 120, "key_refused")
    assert {(await taken(room, ring, *keys)).key_id for _ in range(4)} == {"b"}
    await room.rest(ring, "b", 0.2, "rate_limited")
    assert 0 < await full(room, ring, *keys) <= 0.2
    got, _ = await in_the_end(room, ring, *keys)
    assert got.key_id == "b"
    state, _ = await room.look(ring, keys)
    assert state.reason == "key_refused"
    assert 110 < state.resting_s <= 120


async def test_what_the_provider_says_of_its_limits_wins(room: RedisKeyRoom, ring: str) -> None:
    key = KeyLimits("a", requests_per_minute=1)
    await room.learn(ring, "a", requests_per_minute=3, tokens_per_minute=None)
    for _ in range(3):
        await taken(room, ring, key)
    assert await full(room, ring, key) > 0
    (state,) = await room.look(ring, [key])
    assert (state.requests_per_minute, state.tokens_per_minute) == (3, None)


async def test_rings_do_not_meet(room: RedisKeyRoom, ring: str) -> None:
    key = KeyLimits("a", requests_per_minute=1)
    await taken(room, ring, key)
    await taken(room, f"{ring}-other", key)
    assert await full(room, ring, key) > 0


async def test_counters_that_were_lost_close_the_ring_for_a_window(
    room: RedisKeyRoom, ring: str, valkey_server: ValkeyServer
) -> None:
    key = KeyLimits("a", requests_per_minute=5)
    await taken(room, ring, key)
    async with redis.asyncio.Redis.from_url(valkey_server.url) as client:
        await client.delete(*[name async for name in client.scan_iter(f"room:{{{ring}}}:*")])
    assert await full(room, ring, key) > 0.9 * WINDOW_S
    _, waited = await in_the_end(room, ring, key)
    assert waited >= 0.8 * WINDOW_S


async def test_without_redis_nothing_may_be_asked(ring: str) -> None:
    room = RedisKeyRoom("unix:///nowhere/redis.sock")
    with pytest.raises(RoomUnavailable):
        await room.take(ring, [KeyLimits("a")], 1)
    await room.close()


class Provider:
    """Counts what a key is asked in any window that ends now, as strictly as can be."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._asked: deque[float] = deque()
        self.total = 0
        self.over = 0

    def ask(self) -> None:
        now = time.monotonic()
        while self._asked and self._asked[0] <= now - WINDOW_S:
            self._asked.popleft()
        self._asked.append(now)
        self.total += 1
        self.over += len(self._asked) > self._limit


async def test_however_long_requests_are_on_their_way_no_key_is_asked_beyond_its_limit(
    valkey_server: ValkeyServer, ring: str
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    limits = {"a": 8, "b": 20}
    keys = [KeyLimits(key_id, requests_per_minute=limit) for key_id, limit in limits.items()]
    providers = {key_id: Provider(limit) for key_id, limit in limits.items()}
    rooms = [RedisKeyRoom(valkey_server.url, window_s=WINDOW_S, lease_s=LEASE_S) for _ in range(3)]
    end = time.monotonic() + 6 * WINDOW_S

    async def ask(room: RedisKeyRoom) -> None:
        while time.monotonic() < end:
            answer = await room.take(ring, keys, 1)
            if isinstance(answer, Full):
                await asyncio.sleep(min(answer.wait_s, 0.05))
                continue
            if chance.random() < 0.1:
                await room.give_back(answer)
                continue
            await asyncio.sleep(chance.choice((0, 0, 0.001, 0.02)))
            providers[answer.key_id].ask()
            await asyncio.sleep(chance.choice((0, 0, 0.001, 0.02)))
            if chance.random() < 0.9:
                await room.counted(answer)
            await room.done(answer, 1)

    await asyncio.gather(*(ask(room) for room in rooms for _ in range(6)))
    for room in rooms:
        await room.close()
    for key_id, provider in providers.items():
        assert provider.over == 0, f"{key_id} was asked {provider.over} times beyond its limit, seed {seed}"
        assert provider.total >= 3 * limits[key_id], f"{key_id} was asked {provider.total} times only, seed {seed}"
