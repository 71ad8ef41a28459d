from __future__ import annotations

import pytest

from benches.scale import Cost


def test_what_a_prompt_and_a_token_cost_is_told_apart_by_two_loads() -> None:
    cost = Cost({"bytes": 10 * 700 + 100 * 3}, {"bytes": 4 * 700 + 800 * 3}, (10, 4), (100, 800))
    assert cost.of("bytes") == pytest.approx((700, 3))
