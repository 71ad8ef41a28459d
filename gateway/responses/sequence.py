"""Numbers of a stream's events. A number says where its event stands, so that a client that comes back with nothing
else, to a process that knows nothing of it, is told exactly what follows.

    0, 1, 2                     created, queued, in_progress
    3 + place                   of the first attempt, where place is that of the item, times 10,000,000, and in the item
    attempt' · 10^14 + place · 1000 + void
                                of a later one; attempt' counts from 1, void are the items that attempts before it left

So an answer of one message has the numbers 0, 1, 2, … without holes, and all numbers stay below 2^53.
"""

from __future__ import annotations

from typing import NamedTuple

HEAD = 3
"""Events before the first attempt's: created, queued, in_progress."""

LARGEST = 2**53 - 1
"""What JSON carries exactly to every client."""

KINDS = ("message", "reasoning", "function_call")

_OF_ITEM = 10_000_000
_VOID = 1000
_OF_ATTEMPT = 10**14

CLOSED = _OF_ITEM - 1
"""The last place in an item: what a restart closed it with."""


class Place(NamedTuple):
    """Of one event. ``attempt`` is 0 before the first one; ``item`` counts those of the attempt, ``event`` those of the
    item; ``void`` are the items of attempts before, as far as the client was told of them."""

    attempt: int
    item: int
    kind: str
    event: int
    void: int = 0

    @property
    def number(self) -> int:
        within = (self.item * len(KINDS) + KINDS.index(self.kind)) * _OF_ITEM + self.event
        if self.attempt == 0:
            return self.event
        if self.attempt == 1:
            return HEAD + within
        return (self.attempt - 1) * _OF_ATTEMPT + within * _VOID + self.void

    @property
    def output_index(self) -> int:
        return self.void + self.item

    @classmethod
    def at(cls, number: int) -> Place:
        if number < HEAD:
            return cls(0, 0, KINDS[0], number)
        later, within = divmod(number, _OF_ATTEMPT)
        void = 0
        if later:
            within, void = divmod(within, _VOID)
        else:
            within -= HEAD
        slot, event = divmod(within, _OF_ITEM)
        item, kind = divmod(slot, len(KINDS))
        return cls(later + 1, item, KINDS[kind], event, void)
