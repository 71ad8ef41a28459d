from __future__ import annotations

from workers.breaker import FAILURES, Breaker


def opened() -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES):
        breaker.begin(0)
        breaker.failed(0)
    return breaker


def test_it_opens_after_failures_in_a_row() -> None:
    breaker = Breaker()
    for _ in range(FAILURES - 1):
        breaker.failed(0)
    breaker.succeeded()
    for _ in range(FAILURES - 1):
        breaker.failed(0)
    assert breaker.wait_s(0) == 0
    breaker.failed(0)
    assert breaker.wait_s(0) == 5


def test_half_open_lets_one_through_and_closes_on_its_success() -> None:
    breaker = opened()
    assert breaker.wait_s(4) == 1
    assert breaker.wait_s(5) == 0
    breaker.begin(5)
    assert breaker.wait_s(5) > 0
    breaker.succeeded()
    assert breaker.wait_s(5) == 0


def test_a_failed_probe_rests_it_twice_as_long() -> None:
    breaker = opened()
    breaker.begin(5)
    breaker.failed(6)
    assert breaker.wait_s(6) == 10
    for _ in range(10):
        now = 6 + 10_000.0
        breaker.begin(now)
        breaker.failed(now)
        assert breaker.wait_s(now) <= 120


def test_those_who_began_before_it_opened_say_nothing_new() -> None:
    breaker = opened()
    breaker.failed(4)
    assert breaker.wait_s(4) == 1


def test_a_probe_that_was_stopped_makes_way_for_another() -> None:
    breaker = opened()
    breaker.begin(5)
    breaker.given_up()
    assert breaker.wait_s(5) == 0
