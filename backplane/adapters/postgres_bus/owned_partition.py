"""A partition that a failover consumer reads, and how far it has come."""

from __future__ import annotations

from collections.abc import Iterable

from backplane.adapters.postgres_bus.consumer import Membership
from backplane.adapters.postgres_bus.watermark import LowWaterMark


class OwnedPartition:
    """One partition, from the claim until it is released or lost."""

    def __init__(self, membership: Membership, partition: int, next_entry: int) -> None:
        self.membership = membership
        self.partition = partition
        self.mark = LowWaterMark(next_entry)
        self.read_next = next_entry
        self.persisted = next_entry
        self.look = True
        self.nacked = 0
        """Delivered, and waiting here to be delivered again."""
        self.release_at: float | None = None
        """Somebody else is to read it: once nothing is with our caller, or at this moment (monotonic seconds)."""

    @property
    def place(self) -> tuple[int, int]:
        return self.membership.subscription_id, self.partition


def columns(rows: Iterable[tuple[tuple[int, int], int]]) -> tuple[list[int], list[int], list[int]]:
    """((subscription, partition), entry) rows as the arrays that a statement takes."""
    subscriptions: list[int] = []
    partitions: list[int] = []
    entries: list[int] = []
    for (subscription, partition), entry in rows:
        subscriptions.append(subscription)
        partitions.append(partition)
        entries.append(entry)
    return subscriptions, partitions, entries
