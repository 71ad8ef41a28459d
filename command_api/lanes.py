"""Which partition of a command topic a prompt takes.

Order comes from the claim and not from the partition, so the partition is free to choose: a tenant has two lanes, its
own hash and one more, and takes the emptier one. A flood fills its own lanes, and a light tenant finds an empty one.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from contextvars import Context
from uuid import UUID

from backplane.ports.bus import BusError, Publisher
from event_schemas.topics import WORKERS

logger = logging.getLogger(__name__)

_FRESH_S = 0.25
_STALE_S = 5.0
_PATIENCE_S = 0.05


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
    """Knows the backlogs without making prompts wait for them: a quarter of a second old at most while prompts come.

    Only those that come after a quiet spell of seconds wait for what is there now, for 50 ms at most.
    """

    def __init__(self, publisher: Publisher, clock: Callable[[], float] = time.monotonic) -> None:
        self._publisher = publisher
        self._clock = clock
        self._backlogs: dict[str, list[int]] = {}
        self._known: dict[str, float] = {}
        """When the backlogs were as they are known."""
        self._asked: dict[str, float] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}

    async def choose(self, topic: str, tenant_id: UUID) -> int:
        """Raises BusError where the topic's partitions are not known yet and cannot be asked for."""
        now = self._clock()
        if topic not in self._backlogs:
            await self._look(topic)
        elif now - self._asked.get(topic, self._known[topic]) > _FRESH_S:
            self._asked[topic] = now
            if topic not in self._asking or self._asking[topic].done():
                self._asking[topic] = asyncio.create_task(self._ask(topic), context=Context())
        if topic in self._asking and now - self._known[topic] > _STALE_S:
            await asyncio.wait({self._asking[topic]}, timeout=_PATIENCE_S)
        backlog = self._backlogs[topic]
        lane = emptier(tenant_id, backlog)
        backlog[lane] += 1
        return lane

    async def _ask(self, topic: str) -> None:
        try:
            await self._look(topic)
        except BusError as error:
            logger.warning("backlog unknown", extra={"action": "backlog_unknown", "topic": topic, "cause": str(error)})

    async def _look(self, topic: str) -> None:
        now = self._clock()
        self._backlogs[topic] = await self._publisher.backlog(topic, WORKERS)
        self._known[topic] = now
