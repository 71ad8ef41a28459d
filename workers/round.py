"""Deficit round robin, weighted, counted in tokens.

Shreedhar and Varghese, "Efficient Fair Queuing using Deficit Round Robin" (SIGCOMM 1995): each tenant that waits gets
a quantum of tokens a round, and its next prompt goes once it has saved up what that costs. So a thousand prompts of
one tenant make another's one wait for a round at most, whoever came first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from uuid import UUID

QUANTUM = 1024
"""Tokens that a tenant of weight 1 gets a round."""

_MOST = 64 * QUANTUM
"""Most tokens that one prompt counts as, so that a round is soon at an end."""


@dataclass(eq=False, slots=True)
class Waiter:
    """A prompt that waits for its turn. ``cost`` is in tokens."""

    tenant_id: UUID
    weight: int
    cost: int
    ring: str
    turn: asyncio.Future[None]

    def __post_init__(self) -> None:
        self.cost = min(self.cost, _MOST)


@dataclass(slots=True)
class _Line:
    waiting: deque[Waiter] = field(default_factory=deque)
    saved: int = 0
    has_quantum: bool = False
    """It got its quantum, and may go until it cannot pay."""

    def first_open(self, shut: Set[str]) -> Waiter | None:
        """The first that waits for nothing but its turn."""
        return next((waiter for waiter in self.waiting if waiter.ring not in shut), None)


class Round:
    """Tenants that wait, each with its prompts in order. A tenant's quantum goes by the weight of its next prompt."""

    def __init__(self) -> None:
        self._lines: dict[UUID, _Line] = {}
        self._order: deque[UUID] = deque()

    def __iter__(self) -> Iterator[Waiter]:
        return (waiter for line in self._lines.values() for waiter in line.waiting)

    def waiting(self, tenant_id: UUID) -> int:
        """How many of this tenant wait."""
        line = self._lines.get(tenant_id)
        return 0 if line is None else len(line.waiting)

    def add(self, waiter: Waiter, *, again: bool) -> None:
        """``again``: its turn came before, in vain, so that it stands first in line, and its tenant in the round."""
        line = self._lines.get(waiter.tenant_id)
        if line is None:
            line = self._lines[waiter.tenant_id] = _Line()
            self._order.append(waiter.tenant_id)
        if not again:
            line.waiting.append(waiter)
            return
        line.waiting.appendleft(waiter)
        line.saved += waiter.cost
        line.has_quantum = True
        self._order.remove(waiter.tenant_id)
        self._order.appendleft(waiter.tenant_id)

    def remove(self, waiter: Waiter) -> None:
        """It waits no longer."""
        line = self._lines[waiter.tenant_id]
        line.waiting.remove(waiter)
        if not line.waiting:
            self._order.remove(waiter.tenant_id)
            del self._lines[waiter.tenant_id]

    def can_go(self, shut: Set[str]) -> bool:
        """Whether somebody waits who needs none of the rings that are ``shut``."""
        return any(line.first_open(shut) is not None for line in self._lines.values())

    def next(self, shut: Set[str]) -> Waiter:
        """Whose turn it is, who waits no longer then. Somebody can go."""
        while True:
            line = self._lines[self._order[0]]
            waiter = line.first_open(shut)
            if waiter is not None:
                if not line.has_quantum:
                    line.has_quantum = True
                    line.saved += QUANTUM * waiter.weight
                if line.saved >= waiter.cost:
                    line.saved -= waiter.cost
                    self.remove(waiter)
                    return waiter
            line.has_quantum = False
            self._order.rotate(-1)
