"""Which partition of a topic a message belongs to: the same on every bus, so that another one keeps the spread."""

from __future__ import annotations

import itertools
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field


def _turns() -> Iterator[int]:
    # Processes that start together do not all begin with the same partition.
    return itertools.count(random.randrange(1 << 16))


@dataclass(frozen=True, slots=True)
class Partitioned:
    """A topic and how many partitions it has."""

    name: str
    partitions: int
    _turns: Iterator[int] = field(default_factory=_turns, init=False, compare=False, repr=False)

    def partition(self, key: str | None, partition: int | None) -> int:
        """The partition for a message: the one asked for, else that of its key, else the next in turn.

        Raises ValueError where the topic has no such partition.
        """
        if partition is not None:
            if not 0 <= partition < self.partitions:
                raise ValueError(f"topic {self.name!r} has the partitions 0 to {self.partitions - 1}, not {partition}")
            return partition
        if key is not None:
            return zlib.crc32(key.encode()) % self.partitions
        return next(self._turns) % self.partitions
