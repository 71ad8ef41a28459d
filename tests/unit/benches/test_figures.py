from __future__ import annotations

import pytest

from benches.answer import Answer
from benches.figures import figures, spread
from benches.load import Load

LOAD = Load(clients=2, tokens=4, delay_s=0.02, seconds=10)


def answer(asked: float, times: list[float], seqs: list[int], ended: float | None = None) -> Answer:
    return Answer(asked, accepted=asked + 0.001, times=times, seqs=seqs, ended=ended)


def test_a_spread_is_of_what_was_measured() -> None:
    of = spread(number / 1000 for number in range(100, 0, -1))
    assert of is not None
    assert of.count == 100
    assert [of.p50, of.p99, of.most] == pytest.approx([50, 99, 100])


def test_a_spread_of_few_is_their_worst() -> None:
    of = spread([0.001, 0.009])
    assert of is not None
    assert [of.p50, of.p99] == pytest.approx([1, 9])


def test_nothing_has_no_spread() -> None:
    assert spread([]) is None


def test_only_the_window_counts() -> None:
    early = answer(98.0, [99.0, 100.5], [1, 4], ended=101.0)
    inside = answer(102.0, [102.5, 103.0], [1, 4], ended=103.1)
    late = answer(109.0, [109.5, 110.5], [2, 4], ended=110.6)
    after = answer(110.2, [110.3], [4], ended=110.4)
    got = figures(LOAD, [early, inside, late, after], opened=100.0)
    assert got.tokens == 3 + 4 + 2
    assert got.frames == 1 + 2 + 1
    assert got.requests == 2
    assert got.tokens_per_s == pytest.approx(0.9)
    assert got.requests_per_s == pytest.approx(0.2)
    assert got.first_token is not None
    assert got.first_token.count == 2
    assert got.first_token.p99 == pytest.approx(500)
    assert got.gap is not None
    assert got.gap.count == 2
    assert got.gap.p50 == pytest.approx(500)
    assert got.gap.most == pytest.approx(1500)


def test_an_answer_without_tokens_counts_for_nothing() -> None:
    got = figures(LOAD, [Answer(101.0, unavailable=["postgres", "projections", "postgres"])], opened=100.0)
    assert got.unavailable == {"postgres": 2, "projections": 1}
    assert (got.first_token, got.accepted, got.gap, got.tokens, got.requests) == (None, None, None, 0, 0)
