"""How often a message is edited."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """At most once in ``interval_s`` seconds, and not before the tool wants to be called again.

    ``clock`` gives seconds.
    """

    def __init__(self, interval_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._not_before = clock()

    @property
    def wait_s(self) -> float:
        """Until the next call may be made."""
        return max(0.0, self._not_before - self._clock())

    def called(self, retry_after_s: float = 0.0) -> None:
        """A call was made, or refused with the wish to be left alone for so long."""
        self._not_before = max(self._not_before, self._clock() + max(self._interval_s, retry_after_s))
