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
    """One of ``victims`` every one to two seconds, for ``seconds``.

    They are dealt from a shuffled deck, so that nobody is spared for long, however the dice fall.
    """
    dice = random.Random(seed)
    kills: list[Kill] = []
    deck: list[str] = []
    at_s = dice.uniform(1, 2)
    while at_s < seconds:
        if not deck:
            deck = [*victims]
            dice.shuffle(deck)
        kills.append(Kill(at_s, deck.pop()))
        at_s += dice.uniform(1, 2)
    return kills
