from __future__ import annotations

from workers.knowledge.fusion import fused


def test_what_both_rank_goes_before_what_one_ranks() -> None:
    assert [thing for thing, _ in fused(["a", "b", "c"], ["d", "b"])] == ["b", "a", "d", "c"]


def test_scores_are_those_of_the_paper() -> None:
    assert dict(fused(["a"], ["b", "a"])) == {"a": 1 / 61 + 1 / 62, "b": 1 / 61}


def test_nothing_from_nothing() -> None:
    assert fused([], []) == []
    assert fused() == []
