"""Warnings that a limit is nearly reached: one for each window of it, however many processes notice."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from backplane.ports.database import Database
from backplane.ports.identifiers import new_id
from command_api import outbox
from event_schemas.envelope import Envelope
from event_schemas.limit_warning import LimitNearlyReached

SOURCE = "/parley/command_api"
ACTOR = "command_api"


class LimitWarnings:
    """Postgres remembers which window of a limit was warned of last, so neither a restart nor a replica repeats it."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
