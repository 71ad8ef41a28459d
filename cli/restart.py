"""How long to wait before a child that died is started again."""

from __future__ import annotations


class Backoff:
    """Doubles from ``first_s`` to ``most_s``, and begins anew after a life of ``reset_s`` seconds."""

    def __init__(self, first_s: float = 0.5, most_s: float = 30.0, reset_s: float = 60.0) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._reset_s = reset_s
        self._next_s = first_s

    def next(self, lived_s: float) -> float:
        """Seconds to wait after a life of ``lived_s`` seconds."""
        if lived_s >= self._reset_s:
            self._next_s = self._first_s
        delay = self._next_s
        self._next_s = min(self._next_s * 2, self._most_s)
        return delay
