"""Refusals of authenticated callers, and of who would sign in as a known user, are facts too. Summed, so that a flood
of them can't flood the bus."""

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
from event_schemas.payload import Payload
from event_schemas.people import SignInRefused
from event_schemas.topics import EVENTS

logger = logging.getLogger(__name__)


NOBODY = "nobody"
"""The actor of what was done by who has not said who they are."""


class _Prompts(NamedTuple):
    tenant_id: UUID
    actor: str
    key_id: UUID
    reason: str
    minute: datetime

    def event(self, count: int) -> Payload:
        return PromptRejected(key_id=self.key_id, reason=self.reason, minute=self.minute, count=count)


class _SignIns(NamedTuple):
    tenant_id: UUID
    actor: str
    user_id: UUID
    reason: str
    minute: datetime

    def event(self, count: int) -> Payload:
        return SignInRefused(user_id=self.user_id, reason=self.reason, minute=self.minute, count=count)


class Refusals:
    """Counts by key or user, reason and minute; publishes the sums every ``window_s`` seconds, and at the end."""

    def __init__(self, publisher: Publisher, window_s: float) -> None:
        self._publisher = publisher
        self._window_s = window_s
        self._counts: Counter[_Prompts | _SignIns] = Counter()

    def count(self, principal: Principal, reason: str) -> None:
        """One more prompt of ``principal`` was refused; ``reason`` is the problem's type."""
        self._counts[_Prompts(principal.tenant_id, principal.actor, principal.key_id, reason, _this_minute())] += 1

    def count_sign_in(self, tenant_id: UUID, user_id: UUID, reason: str) -> None:
        """Somebody who wanted to sign in as this user was refused."""
        self._counts[_SignIns(tenant_id, NOBODY, user_id, reason, _this_minute())] += 1

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
                one.event(count),
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


def _this_minute() -> datetime:
    return datetime.now(UTC).replace(second=0, microsecond=0)
