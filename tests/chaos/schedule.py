"""Who is killed, and when: the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Kill:
    at_s: float
    """Seconds after the kills began."""
    victim: str


def schedule(seed: int, seconds: float, victims: Sequence[str]) -> list[Kill]:
    """One of ``victims`` every one to two seconds, for ``seconds``."""
    dice = random.Random(seed)
    kills: list[Kill] = []
    at_s = dice.uniform(1, 2)
    while at_s < seconds:
        kills.append(Kill(at_s, dice.choice(victims)))
        at_s += dice.uniform(1, 2)
    return kills
