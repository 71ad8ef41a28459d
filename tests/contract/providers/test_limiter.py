"""A key's limits are exact."""

from __future__ import annotations

import pytest

from tests.providers.limiter import Admitted, Limiter, OverLimit, Room


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_no_more_requests_than_the_limit_fall_into_any_window(clock: Clock) -> None:
    limiter = Limiter(2, None, None, 10.0, clock)
    limiter.admit(1, 0)
    clock.now += 4
    limiter.admit(1, 0)
    clock.now += 5
    over = limiter.admit(1, 0)
    assert isinstance(over, OverLimit)
    assert (over.kind, over.limit, over.used, over.retry_after_s) == ("requests", 2, 2, 1.0)
    clock.now += 1
    assert isinstance(limiter.admit(1, 0), Admitted)
    assert isinstance(limiter.admit(1, 0), OverLimit)


def test_tokens_count_as_asked_until_they_are_known(clock: Clock) -> None:
    limiter = Limiter(None, 100, None, 10.0, clock)
    first = limiter.admit(90, 0)
    assert isinstance(first, Admitted)
    clock.now += 3
    over = limiter.admit(20, 0)
    assert isinstance(over, OverLimit)
    assert (over.kind, over.used, over.asked, over.retry_after_s) == ("tokens", 90, 20, 7.0)
    first.tokens = 15
    assert isinstance(limiter.admit(20, 0), Admitted)
    assert limiter.tokens() == Room(100, 65, 10.0)


def test_a_refused_request_counts_nothing(clock: Clock) -> None:
    limiter = Limiter(1, None, 1, 10.0, clock)
    over = limiter.admit(1, 1)
    assert isinstance(over, OverLimit)
    assert over.kind == "concurrent"
    assert limiter.requests() == Room(1, 1, 0.0)
    assert isinstance(limiter.admit(1, 0), Admitted)


def test_without_limits_all_is_admitted_and_nothing_is_told(clock: Clock) -> None:
    limiter = Limiter(None, None, None, 10.0, clock)
    assert all(isinstance(limiter.admit(10**9, 10**6), Admitted) for _ in range(100))
    assert limiter.requests() is None
    assert limiter.tokens() is None
