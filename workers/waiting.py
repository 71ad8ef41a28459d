"""Since when prompts wait in this worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime


class Waiting:
    def __init__(self) -> None:
        self._since: dict[object, datetime] = {}

    @contextmanager
    def since(self, submitted: datetime) -> Iterator[None]:
        """A prompt that was submitted then waits while the context lasts."""
        mine = object()
        self._since[mine] = submitted
        try:
            yield
        finally:
            del self._since[mine]

    def oldest_s(self) -> float:
        """Age in seconds of the oldest prompt that waits; 0 where none does."""
        if not self._since:
            return 0.0
        return max(0.0, (datetime.now(UTC) - min(self._since.values())).total_seconds())
