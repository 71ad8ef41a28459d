"""A circuit breaker: who failed again and again is left alone for a while, then tried by one request.

Nygard, "Release It!", chapter "Stability Patterns". Pure: the time is given.
"""

from __future__ import annotations

FAILURES = 5
"""Failures in a row that open one, unless it is told otherwise."""

_FIRST_REST_S = 5.0
_LONGEST_REST_S = 120.0


class Breaker:
    """Closed: all may go. Open: nobody. Half open, after a rest: one at a time, until one comes through."""

    def __init__(self, failures: int = FAILURES) -> None:
        """``failures`` in a row open it."""
        self._most = failures
        self._failures = 0
        self._open_until: float | None = None
        self._rest_s = _FIRST_REST_S
        self._probing = False

    def wait_s(self, now: float) -> float:
        """Seconds until somebody may go; 0: now. While a probe is out, a moment."""
        if self._open_until is None:
            return 0.0
        if now < self._open_until:
            return self._open_until - now
        return 0.25 if self._probing else 0.0

    def begin(self, now: float) -> None:
        """Somebody goes."""
        if self._open_until is not None and now >= self._open_until:
            self._probing = True

    def succeeded(self) -> None:
        """It came through: closed."""
        self._failures = 0
        self._open_until = None
        self._rest_s = _FIRST_REST_S
        self._probing = False

    def failed(self, now: float) -> None:
        """It failed in a way that others would, too."""
        self._failures += 1
        if self._open_until is not None:
            if not self._probing:
                return  # it began before the breaker opened
            self._probing = False
            self._rest_s = min(self._rest_s * 2, _LONGEST_REST_S)
        elif self._failures < self._most:
            return
        self._open_until = now + self._rest_s

    def given_up(self) -> None:
        """It was stopped before anybody could tell."""
        self._probing = False
