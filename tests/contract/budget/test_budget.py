"""Limits: counted in all scopes or in none, reserved until the record says what became of it, settled once."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backplane.adapters.redis.budget import RedisBudget
from backplane.ports.budget import (
    NANO,
    Admitted,
    BudgetUnavailable,
    Counted,
    CountersLost,
    Exceeded,
    Opened,
    Overdue,
    Reservation,
    Scope,
    Spent,
    scopes,
)
from backplane.ports.identifiers import new_id
from event_schemas.limits import Limits
from tests.conftest import ValkeyServer
from tests.contract.budget.reference import ReferenceBudget

TENANT, USER, KEY = UUID(int=1), UUID(int=2), UUID(int=3)
SCOPES = scopes(TENANT, USER, KEY, "a model")
OF_TENANT, OF_USER = SCOPES[1], SCOPES[2]
NOON = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


class Clock:
    def __init__(self, at: datetime = NOON) -> None:
        self.ms = round(at.timestamp() * 1000)

    def __call__(self) -> int:
        return self.ms

    def goes(self, seconds: float) -> None:
        self.ms += round(seconds * 1000)

    @property
    def at(self) -> datetime:
        return datetime.fromtimestamp(self.ms / 1000, UTC)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def make(valkey_server: ValkeyServer) -> AsyncIterator[Callable[..., Awaitable[RedisBudget]]]:
    made: list[RedisBudget] = []
    name = secrets.token_hex(4)

    async def make(now_ms: Callable[[], int] | None = None, *, rebuilt: bool = True) -> RedisBudget:
        budget = RedisBudget(valkey_server.url, name=name, now_ms=now_ms)
        made.append(budget)
        if rebuilt:
            await budget.finish(await budget.begin())
        return budget

    yield make
    for budget in made:
        await budget.close()


@pytest.fixture
async def budget(make: Callable[..., Awaitable[RedisBudget]], clock: Clock) -> RedisBudget:
    return await make(clock)


def reservation(tokens: int = 10, nano: int = 0, id: UUID | None = None) -> Reservation:
    return Reservation(id or new_id(), TENANT, tokens, nano)


def limited(**of: Limits) -> list[tuple[Scope, Limits]]:
    """Every scope; those that are named by their dimension have limits."""
    return [(scope, of.get(scope.dimension, Limits())) for scope in SCOPES]


async def admitted(budget: RedisBudget, wanted: Reservation, limits: list[tuple[Scope, Limits]]) -> Admitted:
    answer = await budget.reserve(wanted, limits, publish_s=5)
    assert isinstance(answer, Admitted), answer
    return answer


async def exceeded(budget: RedisBudget, wanted: Reservation, limits: list[tuple[Scope, Limits]]) -> Exceeded:
    answer = await budget.reserve(wanted, limits, publish_s=5)
    assert isinstance(answer, Exceeded), answer
    return answer


def ended(of: Reservation, clock: Clock, tokens: int, nano: int, *, ends: bool = True) -> Spent:
    return Spent(of.generation_id, SCOPES, tokens, nano, clock.at, ends)


async def test_what_is_refused_in_one_dimension_costs_nothing_in_any_other(budget: RedisBudget) -> None:
    limits = limited(user=Limits(requests_per_minute=1))
    await admitted(budget, reservation(nano=7), limits)
    before = await budget.look(SCOPES)
    answer = await exceeded(budget, reservation(nano=7), limits)
    assert (answer.by.scope, answer.by.kind, answer.by.limit) == (OF_USER, "requests_per_minute", 1)
    assert await budget.look(SCOPES) == before
    assert {(use.requests, use.tokens, use.concurrent, use.reserved_nano_usd) for use in before} == {(1, 10, 1, 7)}


async def test_requests_leave_the_window_a_minute_later_and_not_before(budget: RedisBudget, clock: Clock) -> None:
    limits = limited(tenant=Limits(requests_per_minute=2))
    clock.goes(0.9)
    await admitted(budget, reservation(), limits)
    clock.goes(30)
    await admitted(budget, reservation(), limits)
    wait_s = (await exceeded(budget, reservation(), limits)).wait_s
    assert wait_s is not None
    assert 30 <= wait_s <= 31
    clock.goes(wait_s - 0.001)
    await exceeded(budget, reservation(), limits)
    clock.goes(0.001)
    await admitted(budget, reservation(), limits)
    await exceeded(budget, reservation(), limits)
    clock.goes(3600)
    assert (await budget.look([OF_TENANT]))[0].requests == 0


async def test_tokens_are_reserved_and_settled(budget: RedisBudget, clock: Clock) -> None:
    limits = limited(tenant=Limits(tokens_per_minute=100))
    first = reservation(tokens=60)
    await admitted(budget, first, limits)
    await exceeded(budget, reservation(tokens=60), limits)
    assert await budget.settle(TENANT, 0, 2, [Opened(first, SCOPES), ended(first, clock, 10, 0)]) == 2
    assert (await budget.look([OF_TENANT]))[0].tokens == 10
    await admitted(budget, reservation(tokens=90), limits)
    never = await exceeded(budget, reservation(tokens=101), limits)
    assert never.wait_s is None


async def test_what_was_used_beyond_the_estimate_counts_also_when_the_minute_is_over(
    budget: RedisBudget, clock: Clock
) -> None:
    first = reservation(tokens=60)
    await admitted(budget, first, limited())
    clock.goes(120)
    await budget.settle(TENANT, 0, 1, [ended(first, clock, 100, 0)])
    assert (await budget.look([OF_TENANT]))[0].tokens == 40


async def test_generations_count_as_running_until_their_end(budget: RedisBudget, clock: Clock) -> None:
    limits = limited(key=Limits(concurrent=1))
    first = reservation()
    await admitted(budget, first, limits)
    clock.goes(7200)
    assert (await exceeded(budget, reservation(), limits)).by.kind == "concurrent"
    await budget.settle(TENANT, 0, 1, [ended(first, clock, 1, 0, ends=False)])
    await exceeded(budget, reservation(), limits)
    await budget.settle(TENANT, 1, 2, [ended(first, clock, 1, 0)])
    await admitted(budget, reservation(), limits)


async def test_money_is_counted_by_day_and_by_month(budget: RedisBudget, clock: Clock) -> None:
    limits = limited(tenant=Limits(usd_per_day=Decimal("0.10"), usd_per_month=Decimal("0.15")))
    cent = NANO // 100
    first = reservation(nano=9 * cent)
    await admitted(budget, first, limits)
    reserved = await exceeded(budget, reservation(nano=2 * cent), limits)
    assert reserved.wait_s == 1, "the reservation may be settled at any moment"
    await budget.settle(TENANT, 0, 1, [ended(first, clock, 1, 10 * cent)])
    of_day = await exceeded(budget, reservation(nano=1), limits)
    assert (of_day.by.kind, of_day.wait_s) == ("usd_per_day", 12 * 3600)
    assert (await exceeded(budget, reservation(nano=11 * cent), limits)).wait_s is None
    clock.goes(12 * 3600)
    assert clock.at == datetime(2026, 2, 1, tzinfo=UTC)
    second = reservation(nano=10 * cent)
    await admitted(budget, second, limits)
    await budget.settle(TENANT, 1, 2, [ended(second, clock, 1, 10 * cent)])
    clock.goes(24 * 3600)
    third = reservation(nano=5 * cent)
    await admitted(budget, third, limits)
    await budget.settle(TENANT, 2, 3, [ended(third, clock, 1, 5 * cent)])
    of_month = await exceeded(budget, reservation(nano=1), limits)
    assert (of_month.by.kind, of_month.wait_s) == ("usd_per_month", 27 * 24 * 3600)


async def test_what_ended_before_midnight_counts_for_the_day_before(budget: RedisBudget, clock: Clock) -> None:
    clock.goes(12 * 3600 + 1)
    late = Spent(new_id(), SCOPES, 1, 5, clock.at - timedelta(seconds=2), ends=True)
    await budget.settle(TENANT, 0, 1, [late])
    (use,) = await budget.look([OF_TENANT])
    assert (use.day_nano_usd, use.month_nano_usd) == (0, 0)


async def test_limits_that_are_set_later_know_what_was_used_before(budget: RedisBudget) -> None:
    for _ in range(3):
        await admitted(budget, reservation(), limited())
    assert (await exceeded(budget, reservation(), limited(model=Limits(concurrent=3)))).by.used == 3


async def test_the_same_generation_is_reserved_once(budget: RedisBudget) -> None:
    limits = limited(user=Limits(requests_per_minute=1))
    one = reservation()
    assert (await admitted(budget, one, limits)).fresh
    assert not (await admitted(budget, one, limits)).fresh
    assert (await budget.look([OF_USER]))[0].requests == 1


async def test_what_was_never_published_is_given_back_whole(budget: RedisBudget) -> None:
    before = await budget.look(SCOPES)
    one = reservation(nano=5)
    await admitted(budget, one, limited())
    await budget.release(one.generation_id)
    await budget.release(one.generation_id)
    assert await budget.look(SCOPES) == before


async def test_what_the_record_has_named_is_not_given_back(budget: RedisBudget, clock: Clock) -> None:
    one = reservation(nano=5)
    await admitted(budget, one, limited())
    await budget.settle(TENANT, 0, 1, [Opened(one, SCOPES)])
    await budget.release(one.generation_id)
    clock.goes(3600)
    assert await budget.overdue(10) == []
    assert (await budget.look([OF_TENANT]))[0].reserved_nano_usd == 5


async def test_what_ought_to_be_published_is_asked_for_and_kept_or_released(budget: RedisBudget, clock: Clock) -> None:
    queued, lost, repeated = (reservation(nano=5) for _ in range(3))
    for one in (queued, lost, repeated):
        await admitted(budget, one, limited())
    clock.goes(4.999)
    assert await budget.overdue(10) == []
    clock.goes(0.001)
    late = {one.generation_id: one for one in await budget.overdue(10)}
    assert set(late) == {one.generation_id for one in (queued, lost, repeated)}
    await admitted(budget, repeated, limited())
    await budget.resolve(late[queued.generation_id], published=True)
    await budget.resolve(late[lost.generation_id], published=False)
    await budget.resolve(late[repeated.generation_id], published=False)
    assert (await budget.look([OF_TENANT]))[0].reserved_nano_usd == 10
    clock.goes(3600)
    assert [one.generation_id for one in await budget.overdue(10)] == [repeated.generation_id]


async def test_no_line_of_the_record_counts_twice(budget: RedisBudget, clock: Clock) -> None:
    one = Spent(new_id(), SCOPES, 1, 5, clock.at, ends=True)
    settled = await asyncio.gather(*(budget.settle(TENANT, 0, 7, [one]) for _ in range(5)))
    assert set(settled) == {7}
    assert await budget.settle(TENANT, 3, 9, [one]) == 7
    assert await budget.cursors() == {TENANT: 7}
    assert (await budget.look([OF_TENANT]))[0].month_nano_usd == 5


async def test_a_prompt_that_nobody_reserved_is_counted_from_the_record(budget: RedisBudget) -> None:
    await budget.settle(TENANT, 0, 1, [Opened(reservation(tokens=9, nano=5), SCOPES)])
    (use,) = await budget.look([OF_TENANT])
    assert (use.requests, use.tokens, use.concurrent, use.reserved_nano_usd) == (1, 9, 1, 5)


async def test_standings_tell_what_is_left_and_what_is_nearly_reached(budget: RedisBudget) -> None:
    limits = limited(
        tenant=Limits(requests_per_minute=4, warn_at_percent=50), user=Limits(tokens_per_minute=100, warn_at_percent=50)
    )
    first = await admitted(budget, reservation(), limits)
    assert [(one.kind, one.left) for one in first.standings] == [("requests_per_minute", 3), ("tokens_per_minute", 90)]
    assert not any(one.nearly_reached for one in first.standings)
    second = await admitted(budget, reservation(), limits)
    assert [one.kind for one in second.standings if one.nearly_reached] == ["requests_per_minute"]
    assert 60 <= second.standings[0].resets_s <= 61


@pytest.mark.parametrize("count", [1, 8])
async def test_five_hundred_at_once_get_what_a_budget_for_fifty_allows(
    make: Callable[..., Awaitable[RedisBudget]], count: int
) -> None:
    doors = [await make(), *[await make(rebuilt=False) for _ in range(count - 1)]]
    limits = limited(tenant=Limits(usd_per_day=Decimal(50)))
    answers = await asyncio.gather(
        *(doors[place % count].reserve(reservation(nano=NANO), limits, publish_s=5) for place in range(500))
    )
    assert sum(isinstance(answer, Admitted) for answer in answers) == 50


async def test_nothing_is_admitted_before_the_counters_are_rebuilt(
    make: Callable[..., Awaitable[RedisBudget]], clock: Clock
) -> None:
    budget = await make(clock, rebuilt=False)
    with pytest.raises(CountersLost):
        await budget.reserve(reservation(), limited(), publish_s=5)
    rebuild = await budget.begin()
    open_ = reservation(tokens=3, nano=5)
    counted = [Counted(scope, 2, 30, 7, 11) for scope in SCOPES]
    loaded = await budget.load(rebuild, clock.at.date(), counted, [Opened(open_, SCOPES)], [(TENANT, 12)])
    for asking in (budget.counts(), budget.settle(TENANT, 0, 1, []), budget.overdue(1)):
        with pytest.raises(CountersLost):
            await asking
    await budget.finish(loaded)
    (use,) = await budget.look([OF_TENANT])
    assert (use.requests, use.tokens, use.concurrent, use.reserved_nano_usd) == (2, 30, 1, 5)
    assert (use.day_nano_usd, use.month_nano_usd) == (7, 11)
    assert await budget.cursors() == {TENANT: 12}
    assert await budget.overdue(10) == []
    await budget.settle(TENANT, 12, 13, [ended(open_, clock, 3, 6)])
    (use,) = await budget.look([OF_TENANT])
    assert (use.tokens, use.concurrent, use.reserved_nano_usd, use.day_nano_usd) == (30, 0, 0, 13)


async def test_of_two_rebuilds_the_later_one_counts(make: Callable[..., Awaitable[RedisBudget]]) -> None:
    budget = await make()
    first = await budget.begin()
    second = await budget.begin()
    for late in (budget.load(first, NOON.date(), [], [], []), budget.finish(first)):
        with pytest.raises(CountersLost):
            await late
    await budget.load(second, NOON.date(), [], [], [])
    with pytest.raises(CountersLost):
        await budget.load(second, NOON.date(), [], [], [])
    await budget.finish(second._replace(step=1))
    await budget.counts()


async def test_what_ended_before_the_record_named_it_is_not_opened_again(budget: RedisBudget, clock: Clock) -> None:
    one = reservation(nano=5)
    await budget.settle(TENANT, 0, 2, [ended(one, clock, 1, 1), Opened(one, SCOPES, ended=True)])
    (use,) = await budget.look([OF_TENANT])
    assert (use.concurrent, use.reserved_nano_usd, use.day_nano_usd) == (0, 0, 1)


async def test_money_is_exact_up_to_the_largest_limit(budget: RedisBudget, clock: Clock) -> None:
    most = 1_000_000 * NANO
    await budget.settle(TENANT, 0, 1, [Spent(new_id(), SCOPES, 1, most - 1, clock.at, ends=True)])
    limits = limited(tenant=Limits(usd_per_month=Decimal(1_000_000)))
    await exceeded(budget, reservation(nano=2), limits)
    await admitted(budget, reservation(nano=1), limits)
    assert (await budget.look([OF_TENANT]))[0].day_nano_usd == most - 1


async def test_without_redis_nothing_can_be_said() -> None:
    budget = RedisBudget("unix:///nowhere/redis.sock")
    with pytest.raises(BudgetUnavailable):
        await budget.reserve(reservation(), limited(), publish_s=5)
    await budget.close()


_IDS = [UUID(int=100 + place) for place in range(6)]
_STEPS = st.one_of(
    st.tuples(st.just("goes"), st.sampled_from([0.001, 0.4, 1, 7, 59.999, 60, 61, 3600, 86400])),
    st.tuples(st.just("reserve"), st.sampled_from(_IDS), st.integers(0, 60), st.integers(0, 60)),
    st.tuples(st.just("release"), st.sampled_from(_IDS)),
    st.tuples(st.just("open"), st.sampled_from(_IDS), st.integers(0, 60), st.integers(0, 60)),
    st.tuples(st.just("spend"), st.sampled_from(_IDS), st.integers(0, 90), st.integers(0, 90), st.booleans()),
    st.tuples(st.just("resolve"), st.booleans()),
)
_LIMITS = limited(
    platform=Limits(usd_per_month=Decimal("0.000000150")),
    tenant=Limits(requests_per_minute=3, usd_per_day=Decimal("0.000000100")),
    user=Limits(tokens_per_minute=100),
    key=Limits(concurrent=3),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(_STEPS, max_size=40))
def test_redis_counts_as_plain_python_does(valkey_server: ValkeyServer, steps: list[tuple]) -> None:  # type: ignore[type-arg]
    asyncio.run(_compare(valkey_server.url, steps))


async def _compare(url: str, steps: list[tuple]) -> None:  # type: ignore[type-arg]
    clock = Clock()
    budget = RedisBudget(url, name=secrets.token_hex(4), now_ms=clock)
    reference = ReferenceBudget(clock.ms)
    line = 0
    try:
        await budget.finish(await budget.begin())
        for step in steps:
            match step:
                case "goes", seconds:
                    clock.goes(seconds)
                    reference.now_ms = clock.ms
                case "reserve", id, tokens, nano:
                    wanted = reservation(tokens, nano, id)
                    answer = await budget.reserve(wanted, _LIMITS, publish_s=5)
                    said = "exceeded" if isinstance(answer, Exceeded) else "admitted" if answer.fresh else "again"
                    assert said == reference.reserve(wanted, _LIMITS, 5)
                case "release", id:
                    await budget.release(id)
                    reference.release(id)
                case "open", id, tokens, nano:
                    opened = Opened(reservation(tokens, nano, id), SCOPES)
                    await budget.settle(TENANT, line, line + 1, [opened])
                    reference.settle(TENANT, line, line + 1, [opened])
                    line += 1
                case "spend", id, tokens, nano, ends:
                    spent = Spent(id, SCOPES, tokens, nano, clock.at, ends)
                    await budget.settle(TENANT, line, line + 1, [spent])
                    reference.settle(TENANT, line, line + 1, [spent])
                    line += 1
                case "resolve", published:
                    late: list[Overdue] = await budget.overdue(100)
                    assert {one.generation_id for one in late} == reference.overdue()
                    for one in late:
                        await budget.resolve(one, published=published)
                        reference.resolve(one.generation_id, published=published)
            assert await budget.look(SCOPES) == [reference.use(scope) for scope in SCOPES]
    finally:
        await budget.close()
