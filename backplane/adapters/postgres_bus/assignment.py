"""Which consumer of a failover subscription reads how many of its partitions."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from uuid import UUID


def quota(me: UUID, subscription_id: int, members: Sequence[UUID], owned: Mapping[UUID, int], partitions: int) -> int:
    """Partitions that ``me`` should read, so that all members read equally many, as far as they can be divided.

    What remains goes to those who own most, so that little moves; among equals by a hash of subscription and consumer,
    so that topics of one partition each are spread too. Every member computes the same from the same picture.
    """

    def rank(member: UUID) -> tuple[int, int, UUID]:
        return -owned.get(member, 0), zlib.crc32(member.bytes + subscription_id.to_bytes(8)), member

    each, extra = divmod(partitions, len(members))
    return each + (me in sorted(members, key=rank)[:extra])
