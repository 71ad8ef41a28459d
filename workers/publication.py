"""Publishing what a worker has to say, in order, however long the bus is away."""

from __future__ import annotations

import asyncio
import logging

from backplane.ports.bus import BusUnavailable, Publisher
from event_schemas.codec import AnyEnvelope, encode
from event_schemas.topics import EVENTS

logger = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 2.0


async def publish_event(publisher: Publisher, tenant_id: str, raw: bytes) -> None:
    """Publish an encoded event, trying until the bus takes it."""
    pause_s = 0.05
    while True:
        try:
            await publisher.publish(EVENTS, raw, key=tenant_id)
            return
        except BusUnavailable as error:
            logger.warning("event waits", extra={"action": "event_waits", "cause": str(error)})
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


class Publication:
    """One attempt's events, one after the other, without making its tokens wait."""

    def __init__(self, publisher: Publisher, tenant_id: str) -> None:
        self._publisher = publisher
        self._tenant_id = tenant_id
        self._queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._task = asyncio.create_task(self._run())

    def say(self, event: AnyEnvelope) -> None:
        """Hand over an event; it is published after those before it."""
        self._queue.put_nowait(encode(event))

    async def all_said(self) -> None:
        """Return once everything handed over is published."""
        await self._queue.join()

    async def close(self) -> None:
        """Drop what is not published yet. Only right once nobody needs it: a fenced attempt, or after ``all_said``."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            raw = await self._queue.get()
            await publish_event(self._publisher, self._tenant_id, raw)
            self._queue.task_done()
