"""How far one reader of a partition has acknowledged without a gap."""

from __future__ import annotations

from collections import deque


class LowWaterMark:
    """Entries are delivered in rising order and acknowledged in any; ``next`` is the first that is not acknowledged."""

    def __init__(self, next_entry: int) -> None:
        self._next = next_entry
        self._delivered: deque[int] = deque()
        self._open: set[int] = set()

    @property
    def next(self) -> int:
        """All that was delivered below was acknowledged. Never goes back."""
        return self._next

    @property
    def delivered_next(self) -> int:
        """Everything from here on was not delivered yet."""
        return self._delivered[-1] + 1 if self._delivered else self._next

    @property
    def outstanding(self) -> int:
        """How many were delivered and not acknowledged."""
        return len(self._open)

    def is_open(self, entry: int) -> bool:
        """It was delivered and not acknowledged."""
        return entry in self._open

    def deliver(self, entry: int) -> None:
        """Raises ValueError where ``entry`` does not follow the one before."""
        if entry < self.delivered_next:
            raise ValueError(f"entry {entry} delivered after {self.delivered_next - 1}")
        self._delivered.append(entry)
        self._open.add(entry)

    def ack(self, entry: int) -> None:
        """Idempotent. What was never delivered is not taken for acknowledged."""
        self._open.discard(entry)
        while self._delivered and self._delivered[0] not in self._open:
            self._next = self._delivered.popleft() + 1
