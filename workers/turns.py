"""Whose turn it is: slots go round the tenants by deficit round robin, weighted, counted in tokens.

Shreedhar and Varghese, "Efficient Fair Queuing using Deficit Round Robin" (SIGCOMM 1995): each tenant that waits gets
a quantum of tokens a round, and its next prompt goes once it has saved up what that costs. So a thousand prompts of
one tenant make another's one wait for a round at most, whoever came first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

QUANTUM = 1024
"""Tokens that a tenant of weight 1 gets a round."""

_MOST = 64 * QUANTUM
"""Most tokens that one prompt counts as, so that a round is soon at an end."""


@dataclass(slots=True)
class _Waiter:
    cost: int
    ring: str
    turn: asyncio.Future[None]


@dataclass(slots=True)
class _Line:
    waiting: deque[_Waiter] = field(default_factory=deque)
    saved: int = 0


class Turns:
    """``slots`` at a time. ``weight`` gives a tenant's share, 1 or more."""

    def __init__(self, slots: int, weight: Callable[[UUID], int] = lambda tenant_id: 1) -> None:
        self._free = slots
        self._weight = weight
        self._lines: dict[UUID, _Line] = {}
        self._round: deque[UUID] = deque()
        """Tenants with somebody waiting; the first one is served now and has got its quantum for this round."""
        self._closed: dict[str, float] = {}
        """Ring of keys → when (the loop's time) there may be room in it again."""
        self._asking: set[str] = set()
        """Rings in which somebody whose turn came asks for room now. One at a time: else all who wait would ask
        whenever there is room for one."""
        self._opening: asyncio.TimerHandle | None = None
        self._ended = False

    def waiting(self, tenant_id: UUID) -> int:
        """How many of this tenant wait."""
        line = self._lines.get(tenant_id)
        return 0 if line is None else len(line.waiting)

    def is_closed(self, ring: str) -> bool:
        """Whether there is no room in this ring of keys now."""
        return ring in self._closed

    async def take(self, tenant_id: UUID, cost: int, ring: str = "", *, again: bool = False) -> None:
        """Return once it is this one's turn, with a slot to give back by ``free``, and leave to ask for room in
        ``ring``, if any, to be ended by ``asked``.

        ``cost`` is in tokens. ``again``: its turn came before, in vain, so that it stands first in its tenant's line.
        """
        if self._ended:
            return
        waiter = _Waiter(min(cost, _MOST), ring, asyncio.get_running_loop().create_future())
        line = self._lines.get(tenant_id)
        if line is None:
            line = self._lines[tenant_id] = _Line()
            self._round.append(tenant_id)
        if again:
            line.waiting.appendleft(waiter)
            line.saved += waiter.cost
        else:
            line.waiting.append(waiter)
        self._serve()
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.done() and not waiter.turn.cancelled():
                self._asking.discard(ring)
                self.free()
            else:
                self._leave(tenant_id, waiter)
            raise

    def asked(self, ring: str) -> None:
        """Whoever asked for room in ``ring`` has an answer; the next one may ask."""
        self._asking.discard(ring)
        self._serve()

    def free(self) -> None:
        """A slot is free again."""
        self._free += 1
        self._serve()

    def let_all_go(self) -> None:
        """Nobody waits any more, nor ever will: what is to come is up to those who wait."""
        self._ended = True
        if self._opening is not None:
            self._opening.cancel()
        for line in self._lines.values():
            for waiter in line.waiting:
                waiter.turn.set_result(None)
        self._lines.clear()
        self._round.clear()

    def close(self, ring: str, seconds: float) -> None:
        """There is no room in this ring of keys for so long; who needs another one goes on."""
        if self._ended:
            return
        loop = asyncio.get_running_loop()
        self._closed[ring] = loop.time() + seconds
        self._watch(loop)

    def reopen(self) -> None:
        """There may be room in any ring of keys again."""
        self._closed.clear()
        self._watch(asyncio.get_running_loop())
        self._serve()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._opening is not None:
            self._opening.cancel()
        self._opening = loop.call_at(min(self._closed.values()), self._open) if self._closed else None

    def _open(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._closed = {ring: at for ring, at in self._closed.items() if at > now}
        self._opening = None
        self._watch(loop)
        self._serve()

    def _serve(self) -> None:
        while self._free > 0 and self._on_to_one_that_can_go():
            tenant_id = self._round[0]
            line = self._lines[tenant_id]
            waiter = line.waiting[self._first_open(line)]
            if line.saved < waiter.cost:
                self._next()
                continue
            line.saved -= waiter.cost
            line.waiting.remove(waiter)
            self._forget_if_empty(tenant_id)
            self._free -= 1
            if waiter.ring:
                self._asking.add(waiter.ring)
            waiter.turn.set_result(None)

    def _on_to_one_that_can_go(self) -> bool:
        for _ in range(len(self._round)):
            if self._first_open(self._lines[self._round[0]]) >= 0:
                return True
            self._next()
        return False

    def _first_open(self, line: _Line) -> int:
        """The place of the first that waits for nothing but its turn; -1 where all wait for room."""
        shut = self._asking | self._closed.keys()
        return next((place for place, waiter in enumerate(line.waiting) if waiter.ring not in shut), -1)

    def _next(self) -> None:
        """On to the next tenant."""
        self._round.rotate(-1)
        self._begin()

    def _begin(self) -> None:
        """The tenant that is first now gets its quantum, unless it could not go anyway."""
        line = self._lines[self._round[0]]
        if self._first_open(line) >= 0:
            line.saved += QUANTUM * self._weight(self._round[0])

    def _leave(self, tenant_id: UUID, waiter: _Waiter) -> None:
        self._lines[tenant_id].waiting.remove(waiter)
        self._forget_if_empty(tenant_id)

    def _forget_if_empty(self, tenant_id: UUID) -> None:
        if self._lines[tenant_id].waiting:
            return
        was_served = self._round[0] == tenant_id
        del self._lines[tenant_id]
        self._round.remove(tenant_id)
        if was_served and self._round:
            self._begin()
