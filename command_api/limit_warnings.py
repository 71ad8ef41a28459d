"""Warnings that a limit is nearly reached: one for each window of it, however many processes notice."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from uuid import UUID

from backplane.ports.budget import Kind, Scope, Standing
from backplane.ports.database import Database, DatabaseUnavailable
from backplane.ports.identifiers import new_id
from command_api import outbox
from event_schemas.envelope import Envelope
from event_schemas.limit_warning import LimitNearlyReached

SOURCE = "/parley/command_api"
ACTOR = "command_api"

logger = logging.getLogger(__name__)

_MOST_REMEMBERED = 10_000


class LimitWarnings:
    """Postgres remembers which window of a limit was warned of last, so neither a restart nor a replica repeats it."""

    def __init__(self, database: Database, told: Callable[[], None] = lambda: None) -> None:
        """``told`` is called after each warning that was added to the outbox."""
        self._database = database
        self._told = told
        self._noticed: dict[tuple[Scope, Kind], datetime] = {}
        self._untold: asyncio.Queue[tuple[Standing, datetime]] = asyncio.Queue()

    def notice(self, standings: Sequence[Standing], now: datetime | None = None) -> None:
        """Leave it to ``run`` to tell of those that are nearly reached. No prompt waits for that."""
        for standing in standings:
            if standing.nearly_reached:
                began = window_of(standing.kind, now or datetime.now(UTC))
                if self._noticed.get((standing.scope, standing.kind)) != began:
                    if len(self._noticed) >= _MOST_REMEMBERED:
                        self._noticed.clear()
                    self._noticed[standing.scope, standing.kind] = began
                    self._untold.put_nowait((standing, began))

    async def run(self) -> None:
        """Tell of what was noticed, until cancelled."""
        while True:
            standing, began = await self._untold.get()
            try:
                if await self.publish(standing.scope.tenant_id, _warning(standing), began):
                    self._told()
            except DatabaseUnavailable as error:
                # The next prompt notices it again.
                self._noticed.pop((standing.scope, standing.kind), None)
                logger.warning("limit warning waits", extra={"action": "limit_warning_waits", "cause": str(error)})

    async def publish(self, tenant_id: UUID, warning: LimitNearlyReached, window_began: datetime) -> bool:
        """Tell ``tenant_id``'s log, unless this window of the limit, or a later one, was told of before.

        Returns whether it did. Raises DatabaseUnavailable.
        """
        async with self._database.tenant(tenant_id) as session:
            is_first = await session.execute(
                """INSERT INTO control.limit_warnings AS known (tenant_id, dimension, whose, limit_name, window_began)
                   VALUES (:tenant_id, :dimension, :whose, :limit, :window_began)
                   ON CONFLICT (tenant_id, dimension, whose, limit_name)
                   DO UPDATE SET window_began = excluded.window_began
                     WHERE known.window_began < excluded.window_began""",
                tenant_id=tenant_id,
                dimension=warning.dimension,
                whose=warning.whose,
                limit=warning.limit,
                window_began=window_began,
            )
            if is_first:
                event = Envelope.first(warning, id=new_id(), source=SOURCE, tenant_id=tenant_id, actor=ACTOR)
                await outbox.add(session, event)
        return bool(is_first)


def window_of(kind: Kind, now: datetime) -> datetime:
    """When that began within which a limit is warned of once: the day, the month, or else the hour; UTC."""
    hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if kind == "usd_per_day":
        return hour.replace(hour=0)
    if kind == "usd_per_month":
        return hour.replace(day=1, hour=0)
    return hour


def _warning(standing: Standing) -> LimitNearlyReached:
    return LimitNearlyReached(
        dimension=standing.scope.dimension,
        whose=standing.scope.subject_id,
        limit=standing.kind,
        percent=standing.used * 100 // standing.limit if standing.limit else 100,
        used=standing.used,
        of=standing.limit,
    )
