"""The deltas of one attempt: all of them for the answer, the newest ones for the next TokensEmitted."""

from __future__ import annotations


class Deltas:
    """Seqs count from 1. Nothing here is awaited, so one loop tick sees it whole."""

    def __init__(self) -> None:
        self._all: list[str] = []
        self._emitted = 0

    def append(self, text: str) -> tuple[int, str]:
        """Take a delta as the engine gave it. Returns its seq, and its text as it can be stored.

        Postgres cannot store U+0000, which a model may well write; it becomes U+FFFD.
        """
        storable = text.replace("\0", "\ufffd")
        self._all.append(storable)
        return len(self._all), storable

    def take(self) -> tuple[int, tuple[str, ...]] | None:
        """What was not taken yet, as (first seq, deltas); None where there is nothing."""
        if self._emitted == len(self._all):
            return None
        first = self._emitted + 1
        fresh = tuple(self._all[self._emitted :])
        self._emitted = len(self._all)
        return first, fresh

    @property
    def count(self) -> int:
        return len(self._all)

    @property
    def text(self) -> str:
        return "".join(self._all)

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(map(len, self._all))
