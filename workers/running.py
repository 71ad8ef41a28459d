"""What one worker runs: kept alive by heartbeats, heard of several times a second, stopped when it is to stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from prometheus_client import Gauge

from backplane.ports.database import DatabaseUnavailable
from workers.asking import Delivery
from workers.attempt import Attempt, Stop
from workers.claims import Claims

logger = logging.getLogger(__name__)

_running_now = Gauge("parley_worker_running", "Generations that this worker runs")


@dataclass(frozen=True, slots=True)
class Run:
    attempt: Attempt
    delivery: Delivery


class Running:
    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._runs: dict[UUID, Run] = {}

    def get(self, generation_id: UUID) -> Run | None:
        return self._runs.get(generation_id)

    @contextmanager
    def holding(self, run: Run) -> Iterator[None]:
        """It runs as long as this is open."""
        self._runs[run.attempt.generation_id] = run
        _running_now.inc()
        try:
            yield
        finally:
            del self._runs[run.attempt.generation_id]
            _running_now.dec()

    def cancel(self, generation_id: UUID) -> None:
        """The cancel of this generation was asked for; stops it if it runs here."""
        if generation_id in self._runs:
            self._runs[generation_id].attempt.stop(Stop.CANCELLED)

    def stop_all(self, why: Stop) -> None:
        for run in list(self._runs.values()):
            run.attempt.stop(why)

    async def heartbeats(self, every_s: float) -> None:
        """Keep the leases, and stop what is no longer this worker's or was cancelled; until this task is cancelled."""
        while True:
            await asyncio.sleep(every_s)
            expected = {id: run.attempt for id, run in self._runs.items() if not run.attempt.ending}
            if not expected:
                continue
            try:
                kept = await self._claims.heartbeat()
            except DatabaseUnavailable as error:
                logger.warning("heartbeat missed", extra={"action": "heartbeat_missed", "cause": str(error)})
                continue
            for generation_id, attempt in expected.items():
                if generation_id not in kept:
                    attempt.stop(Stop.FENCED)
                elif kept[generation_id]:
                    attempt.stop(Stop.CANCELLED)

    async def emissions(self, every_s: float) -> None:
        """Let each say what came to be since the last time; until this task is cancelled."""
        while True:
            await asyncio.sleep(every_s)
            for run in self._runs.values():
                run.attempt.emit()
