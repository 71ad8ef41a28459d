"""When an attempt's tokens came."""

from __future__ import annotations

import time

from prometheus_client import Histogram

from workers.facts import Timing

_first_token = Histogram(
    "parley_worker_first_token_seconds",
    "From the beginning of an attempt to its first token",
    ["pool", "model"],
    buckets=(0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)
_gap = Histogram(
    "parley_worker_token_gap_seconds",
    "Between two tokens of an attempt",
    ["pool"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30),
)


class Pace:
    """Of one attempt, which begins now. ``model`` is one of a bounded set: a name in the settings."""

    def __init__(self, pool: str, model: str) -> None:
        self._began = time.monotonic()
        self._first: float | None = None
        self._newest = 0.0
        self._of_first = _first_token.labels(pool, model)
        self._of_gap = _gap.labels(pool)

    def token(self) -> None:
        """One came."""
        now = time.monotonic()
        if self._first is None:
            self._first = now
            self._of_first.observe(now - self._began)
        else:
            self._of_gap.observe(now - self._newest)
        self._newest = now

    def timing(self) -> Timing:
        """Of the attempt if it ends now."""
        ended = time.monotonic()
        first = ended if self._first is None else self._first
        return Timing(
            first_token_ms=round((first - self._began) * 1000), duration_ms=round((ended - self._began) * 1000)
        )
