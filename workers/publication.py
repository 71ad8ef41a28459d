"""Publishing what a worker has to say, in order, however long the bus is away."""

from __future__ import annotations

import asyncio
import logging

from backplane.ports.bus import BusError, MessageTooLarge, Publisher
from event_schemas.topics import EVENTS

logger = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 2.0


async def publish_event(publisher: Publisher, tenant_id: str, raw: bytes) -> None:
    """Publish an encoded event, trying until the bus takes it. Raises MessageTooLarge."""
    pause_s = 0.05
    while True:
        try:
            await publisher.publish(EVENTS, raw, key=tenant_id)
            return
        except MessageTooLarge:
            raise
        except BusError as error:
            logger.warning("event waits", extra={"action": "event_waits", "cause": str(error)})
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


class Publication:
    """One attempt's events, in order, without making its tokens wait. What comes during a publish goes together."""

    def __init__(self, publisher: Publisher, tenant_id: str) -> None:
        self._publisher = publisher
        self._tenant_id = tenant_id
        self._waiting: list[bytes] = []
        self._task: asyncio.Task[None] | None = None

    def say(self, event: bytes) -> None:
        """Hand over an encoded event; it is published after those before it."""
        self._waiting.append(event)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    async def all_said(self) -> None:
        """Return once everything handed over is published. Raises BusError where the bus will never take it."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def close(self) -> None:
        """Drop what is not published yet. Only right once nobody needs it: a fenced attempt, or after ``all_said``."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while self._waiting:
            said, self._waiting = self._waiting, []
            await asyncio.gather(*(publish_event(self._publisher, self._tenant_id, raw) for raw in said))
