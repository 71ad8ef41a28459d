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
from workers import estimate
from workers.asking import Delivery
from workers.attempt import Attempt
from workers.claims import Claimed, Claims
from workers.outcome import Stop
from workers.ports import AttemptPorts
from workers.upstream import Leave

logger = logging.getLogger(__name__)

_running_now = Gauge("parley_worker_running", "Generations that this worker runs")


@dataclass(slots=True)
class Run:
    """``attempt`` becomes the next one where an answer has to be repaired."""

    attempt: Attempt
    delivery: Delivery

    @classmethod
    def begun(cls, ports: AttemptPorts, delivery: Delivery, claimed: Claimed, permit: Leave) -> Run:
        """The attempt that was claimed. ``permit`` is the upstream's leave to ask."""
        unfit = delivery.unfit if delivery.unfit and delivery.unfit.attempt == claimed.attempt - 1 else None
        facts, prompt = delivery.facts, delivery.prompt
        return cls(
            Attempt(ports, facts, prompt, claimed.attempt, claimed.keys, permit, unfit, claimed.repairs), delivery
        )

    async def go_on(self, ports: AttemptPorts, claimed: Claimed) -> None:
        """With the attempt that was claimed after this one, which is to stop where this one was to."""
        tokens = estimate.tokens(self.delivery.prompt)
        permit = await ports.upstream.permit(self.delivery.facts.tenant_id, tokens)
        before, self.attempt = self.attempt, self.begun(ports, self.delivery, claimed, permit).attempt
        if (why := before.stopped or (Stop.CANCELLED if claimed.cancel_requested else None)) is not None:
            self.attempt.stop(why)
        await before.close()


class Running:
    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._runs: dict[UUID, Run] = {}

    def get(self, generation_id: UUID) -> Run | None:
        return self._runs.get(generation_id)

    @contextmanager
    def holding(self, run: Run) -> Iterator[Run]:
        """It runs as long as this is open."""
        self._runs[run.attempt.generation_id] = run
        _running_now.inc()
        try:
            yield run
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
