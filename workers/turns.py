"""Whose turn it is: slots go round the tenants by weight, and to a higher priority before a lower one. Batches come
after all priorities."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Literal
from uuid import UUID

from event_schemas.share import Priority, Share
from workers.round import Round, Waiter

MOST_PASSED = 9
"""Turns in a row that higher priorities may have while a lower one waits. The next one is its own."""

_Rank = Priority | Literal["idle"]

_DOWNWARDS: tuple[_Rank, ...] = ("high", "normal", "low", "idle")


class Turns:
    """``slots`` at a time."""

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._rounds = {priority: Round() for priority in _DOWNWARDS}
        self._passed: Counter[_Rank] = Counter()
        """Turns that each could have had since its last one."""
        self._closed: dict[str, float] = {}
        """Ring of keys → when (the loop's time) there may be room in it again."""
        self._asking: set[str] = set()
        """Rings in which somebody whose turn came asks for room now. One at a time: else all who wait would ask
        whenever there is room for one."""
        self._opening: asyncio.TimerHandle | None = None
        self._ended = False

    def waiting(self, tenant_id: UUID) -> int:
        """How many of this tenant wait."""
        return sum(round.waiting(tenant_id) for round in self._rounds.values())

    def is_closed(self, ring: str) -> bool:
        """Whether there is no room in this ring of keys now."""
        return ring in self._closed

    async def take(
        self, tenant_id: UUID, share: Share, cost: int, ring: str = "", *, again: bool = False, idle: bool = False
    ) -> None:
        """Return once it is this one's turn, with a slot to give back by ``free``, and leave to ask for room in
        ``ring``, if any, to be ended by ``asked``.

        ``cost`` is in tokens. ``again``: its turn came before, in vain, so that its priority's next one is its own.
        ``idle``: it is of a batch.
        """
        if self._ended:
            return
        rank: _Rank = "idle" if idle else share.priority
        round = self._rounds[rank]
        waiter = Waiter(tenant_id, share.weight, cost, ring, asyncio.get_running_loop().create_future())
        round.add(waiter, again=again)
        if again:
            self._passed[rank] = MOST_PASSED
        self._serve()
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.done() and not waiter.turn.cancelled():
                self._asking.discard(ring)
                self.free()
            else:
                round.remove(waiter)
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
        for round in self._rounds.values():
            for waiter in list(round):
                round.remove(waiter)
                waiter.turn.set_result(None)

    def close(self, ring: str, seconds: float) -> None:
        """There is no room in this ring of keys for so long; who needs another one goes on."""
        if self._ended:
            return
        loop = asyncio.get_running_loop()
        self._closed[ring] = loop.time() + seconds
        self._watch(loop)

    def reopen(self) -> None:
        """Keys were added or retired: there may be room in any ring again."""
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
        while self._free > 0 and (waiter := self._next()) is not None:
            self._free -= 1
            if waiter.ring:
                self._asking.add(waiter.ring)
            waiter.turn.set_result(None)

    def _next(self) -> Waiter | None:
        shut = self._asking | self._closed.keys()
        able = [priority for priority, round in self._rounds.items() if round.can_go(shut)]
        if not able:
            return None
        chosen = next((priority for priority in able if self._passed[priority] >= MOST_PASSED), able[0])
        self._passed.update(able)
        self._passed[chosen] = 0
        return self._rounds[chosen].next(shut)
