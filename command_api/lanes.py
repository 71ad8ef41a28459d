"""Which partition of a command topic a prompt takes.

Order comes from the claim and not from the partition, so the partition is free to choose: a tenant has two lanes, its
own hash and one more, and takes the emptier one. A flood fills its own lanes, and a light tenant finds an empty one.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Sequence
from uuid import UUID

from backplane.ports.bus import BusError, Publisher
from event_schemas.topics import WORKERS

logger = logging.getLogger(__name__)

_FRESH_S = 0.25


def lanes(tenant_id: UUID, partitions: int) -> tuple[int, int]:
    """A tenant's two lanes; different ones wherever there are two partitions."""
    digest = hashlib.blake2b(tenant_id.bytes, digest_size=8).digest()
    first = int.from_bytes(digest[:4]) % partitions
    if partitions == 1:
        return first, first
    step = 1 + int.from_bytes(digest[4:]) % (partitions - 1)
    return first, (first + step) % partitions


def emptier(tenant_id: UUID, backlog: Sequence[int]) -> int:
    """The lane of ``tenant_id`` with the smaller backlog; its first one where they are equal."""
    first, second = lanes(tenant_id, len(backlog))
    return second if backlog[second] < backlog[first] else first


class Lanes:
    """Knows the backlogs without making any prompt wait for them: a quarter of a second old at most while prompts come.

    The first one after a quiet spell goes by what was there before it.
    """

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._backlogs: dict[str, list[int]] = {}
        self._asked: dict[str, float] = {}
        self._asking: set[asyncio.Task[None]] = set()

    async def choose(self, topic: str, tenant_id: UUID) -> int:
        """Raises BusError where the topic's partitions are not known yet and cannot be asked for."""
        if topic not in self._backlogs:
            self._backlogs[topic] = await self._publisher.backlog(topic, WORKERS)
        elif time.monotonic() - self._asked.get(topic, 0.0) > _FRESH_S:
            self._asked[topic] = time.monotonic()
            task = asyncio.create_task(self._ask(topic))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        backlog = self._backlogs[topic]
        lane = emptier(tenant_id, backlog)
        backlog[lane] += 1
        return lane

    async def _ask(self, topic: str) -> None:
        try:
            self._backlogs[topic] = await self._publisher.backlog(topic, WORKERS)
        except BusError as error:
            logger.warning("backlog unknown", extra={"action": "backlog_unknown", "topic": topic, "cause": str(error)})
