"""Rankings become one by where each puts a thing, not by scores that cannot be compared.

Reciprocal rank fusion: Cormack, Clarke and Buettcher 2009, "Reciprocal Rank Fusion outperforms Condorcet and individual
Rank Learning Methods", SIGIR, https://doi.org/10.1145/1571941.1572114.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

_K = 60
"""Theirs. The larger it is, the less the first places count beside the next ones."""


def fused(*rankings: Sequence[T]) -> list[tuple[T, float]]:
    """All that any ranking has, the best first, with its score. Of equals, that which an earlier ranking has first."""
    scores: dict[T, float] = {}
    for ranking in rankings:
        for place, thing in enumerate(ranking, 1):
            scores[thing] = scores.get(thing, 0.0) + 1 / (_K + place)
    return sorted(scores.items(), key=lambda each: -each[1])
