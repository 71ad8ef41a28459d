"""Which models are in memory: who is loaded, who is unloaded for another one, and who waits.

Pure: it decides, and whoever asks it loads and unloads, then says so.

- Who wants a model that is in memory runs at once.
- Models are loaded one at a time, first come first served. The least recently used ones that run nothing make room.
- Where only models that run something could make room, a load waits until they are done. After ``patience_s`` nobody
  is let in to these any more, so that it waits no longer than what runs there. What was loaded last is left alone for
  as long, so that two models that take turns are not loaded more often than that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

PATIENCE_S = 10.0


@dataclass(slots=True, eq=False)
class Waiter:
    """Somebody who wants ``model`` since ``since``, in seconds."""

    model: str
    since: float


@dataclass(frozen=True, slots=True)
class Admit:
    """``waiter`` runs now, until ``MemoryPlan.done``."""

    waiter: Waiter


@dataclass(frozen=True, slots=True)
class Load:
    """Load ``model``, then say ``loaded`` or ``gone``."""

    model: str


@dataclass(frozen=True, slots=True)
class Unload:
    """Unload ``model``, then say ``gone``."""

    model: str


Step = Admit | Load | Unload


class MemoryPlan:
    """``needs`` is what each model takes, in bytes; each fits into ``limit`` by itself. None: no limit."""

    def __init__(self, needs: Mapping[str, int], limit: int | None, patience_s: float = PATIENCE_S) -> None:
        self._needs = needs
        self._limit = limit
        self._patience_s = patience_s
        self._loaded: dict[str, int] = {}
        """Model → what it runs; the least recently used one first."""
        self._loading: str | None = None
        self._unloading: set[str] = set()
        self._lost: set[str] = set()
        self._closed: set[str] = set()
        """Nobody is let in to these: they make room for ``_closed_for``."""
        self._closed_for: str | None = None
        self._waiting: list[Waiter] = []
        self._last_load = float("-inf")

    @property
    def in_memory(self) -> Collection[str]:
        """The models that can be asked, and lost ones that something runs on."""
        return self._loaded.keys()

    @property
    def bytes(self) -> int:
        """What is taken, by models that come or go as well."""
        return sum(self._needs[model] for model in (*self._loaded, *self._unloading, *self._arriving()))

    def ask(self, model: str, now: float) -> Waiter:
        """Somebody wants ``model``. To be ended by Admit or ``leave``."""
        waiter = Waiter(model, now)
        self._waiting.append(waiter)
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """It does not wait any more, if it did."""
        if waiter in self._waiting:
            self._waiting.remove(waiter)

    def done(self, model: str) -> None:
        """One that was let in has ended."""
        self._loaded[model] = self._loaded.pop(model) - 1

    def loaded(self, model: str, now: float) -> None:
        """The load has ended well."""
        self._loading = None
        self._loaded[model] = 0
        self._last_load = now

    def gone(self, model: str) -> None:
        """It is not in memory: it was unloaded, or its load failed."""
        if self._loading == model:
            self._loading = None
        self._unloading.discard(model)

    def lost(self, model: str) -> None:
        """A model in memory broke down: nobody is let in, and it is unloaded once nothing runs there."""
        self._lost.add(model)

    def waiting_for(self, model: str) -> list[Waiter]:
        """Who waits for ``model``, in order."""
        return [waiter for waiter in self._waiting if waiter.model == model]

    def patience_ends(self) -> float | None:
        """When ``next`` may have more to say although nothing has happened. None: it will not."""
        first = self._first_to_load()
        if first is None or self._loading is not None or self._closed_for == first.model:
            return None
        return max(first.since, self._last_load) + self._patience_s

    def next(self, now: float) -> Step | None:
        """What to do next; it counts as begun. To be asked until None."""
        first = self._first_to_load()
        if first is None or first.model != self._closed_for:
            self._closed, self._closed_for = set(), None
        for waiter in self._waiting:
            if waiter.model in self._loaded and waiter.model not in self._closed | self._lost:
                self._waiting.remove(waiter)
                self._loaded[waiter.model] = self._loaded.pop(waiter.model) + 1
                return Admit(waiter)
        for model in self._lost:
            if not self._loaded[model]:
                return self._unload(model)
        return self._next_load(first, now)

    def _next_load(self, first: Waiter | None, now: float) -> Load | Unload | None:
        if first is None or self._loading is not None or first.model in self._unloading:
            return None
        missing = 0 if self._limit is None else self.bytes + self._needs[first.model] - self._limit
        if missing <= 0:
            self._loading = first.model
            return Load(first.model)
        return self._make_room(first, missing - sum(self._needs[model] for model in self._unloading), now)

    def _make_room(self, first: Waiter, missing: int, now: float) -> Unload | None:
        if missing <= 0:  # what is being unloaded is enough
            return None
        if not self._closed:
            leaving = self._cheapest(missing)
            if any(self._loaded[model] for model in leaving):
                if now < max(first.since, self._last_load) + self._patience_s:
                    return None
                self._closed, self._closed_for = leaving, first.model
        else:
            leaving = self._closed
        idle = next((model for model in self._loaded if model in leaving and not self._loaded[model]), None)
        return None if idle is None else self._unload(idle)

    def _cheapest(self, missing: int) -> set[str]:
        """Models that together hold ``missing`` bytes: those that run nothing first, then the least recently used."""
        leaving: set[str] = set()
        for model in sorted(self._loaded, key=lambda model: self._loaded[model] > 0):
            if missing <= 0:
                break
            leaving.add(model)
            missing -= self._needs[model]
        return leaving

    def _unload(self, model: str) -> Unload:
        del self._loaded[model]
        self._lost.discard(model)
        self._closed.discard(model)
        self._unloading.add(model)
        return Unload(model)

    def _first_to_load(self) -> Waiter | None:
        there = (*self._loaded, *self._arriving())
        return next((waiter for waiter in self._waiting if waiter.model not in there), None)

    def _arriving(self) -> tuple[str, ...]:
        return () if self._loading is None else (self._loading,)
