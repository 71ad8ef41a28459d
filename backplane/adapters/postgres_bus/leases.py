"""One heartbeat a process keeps all of its consumers alive, and buries those of processes that died."""

from __future__ import annotations

import asyncio
import logging
import time
from contextvars import Context
from typing import Protocol
from uuid import UUID

from backplane.adapters.postgres_bus.connections import Connections
from backplane.adapters.postgres_bus.tasks import stop
from backplane.ports.bus import BusError

logger = logging.getLogger(__name__)


class Leaseholder(Protocol):
    id: UUID

    def renewed(self, at: float) -> None:
        """The lease runs from ``at`` (monotonic seconds, before the server was asked)."""

    def lost(self) -> None:
        """The lease ran out and others may have what this consumer held."""


class Leases:
    def __init__(self, connections: Connections, lease_s: float) -> None:
        self.lease_s = lease_s
        self._connections = connections
        self._holders: dict[UUID, Leaseholder] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, holder: Leaseholder) -> None:
        self._holders[holder.id] = holder
        if self._task is None:
            self._task = asyncio.create_task(self._run(), context=Context())

    def remove(self, holder: Leaseholder) -> None:
        self._holders.pop(holder.id, None)

    async def close(self) -> None:
        if self._task is not None:
            await stop(self._task)

    async def _run(self) -> None:
        answers = True
        while True:
            try:
                await self._beat()
            except BusError as error:
                if answers:
                    logger.warning("cannot renew the leases: %s", error, extra={"action": "bus_beat_failed"})
                answers = False
                await asyncio.sleep(min(self.lease_s / 10, 0.5))
            else:
                answers = True
                await asyncio.sleep(self.lease_s / 3)

    async def _beat(self) -> None:
        asked = list(self._holders.values())
        at = time.monotonic()
        rows = await self._connections.fetch("SELECT b AS id FROM bus.beat($1) b", [holder.id for holder in asked])
        alive = {row["id"] for row in rows}
        for holder in asked:
            if self._holders.get(holder.id) is not holder:
                continue
            if holder.id in alive:
                holder.renewed(at)
            else:
                logger.warning("a consumer's lease ran out; it joins again", extra={"action": "bus_lease_lost"})
                holder.lost()
