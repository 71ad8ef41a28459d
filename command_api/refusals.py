"""Refusals of authenticated callers are facts too. Summed, so that a flood of them can't flood the bus."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from backplane.ports.bus import BusError, Publisher
from backplane.ports.identifiers import new_id
from backplane.security.principal import Principal
from event_schemas.codec import encode
from event_schemas.envelope import Envelope
from event_schemas.generation import PromptRejected
from event_schemas.topics import EVENTS

logger = logging.getLogger(__name__)


class _Sum(NamedTuple):
    tenant_id: UUID
    key_id: UUID
    actor: str
    reason: str
    minute: datetime


class Refusals:
    """Counts by key, reason and minute; publishes the sums every ``window_s`` seconds, and at the end."""

    def __init__(self, publisher: Publisher, window_s: float) -> None:
        self._publisher = publisher
        self._window_s = window_s
        self._counts: Counter[_Sum] = Counter()

    def count(self, principal: Principal, reason: str) -> None:
        """One more prompt of ``principal`` was refused; ``reason`` is the problem's type."""
        minute = datetime.now(UTC).replace(second=0, microsecond=0)
        self._counts[_Sum(principal.tenant_id, principal.key_id, principal.actor, reason, minute)] += 1

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop`` is set, and once more then."""
        while not stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._window_s)
            await self.publish()

    async def publish(self) -> None:
        """Publish what was counted. What the bus does not take is kept for the next time."""
        counted, self._counts = self._counts, Counter()
        for one, count in counted.items():
            event = Envelope.first(
                PromptRejected(key_id=one.key_id, reason=one.reason, minute=one.minute, count=count),
                id=new_id(),
                source="/parley/command_api",
                tenant_id=one.tenant_id,
                actor=one.actor,
            )
            try:
                await self._publisher.publish(EVENTS, encode(event), key=str(one.tenant_id))
            except BusError as error:
                self._counts[one] += count
                logger.warning("refusals wait", extra={"action": "refusals_wait", "cause": str(error)})
