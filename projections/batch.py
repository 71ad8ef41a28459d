"""The one transaction of a batch: the record, the folds and the positions, or nothing of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

from backplane.ports.bus import Message, Position
from backplane.ports.database import Database
from projections import event_log, lag, positions, tracing
from projections.catalog import PROJECTIONS
from projections.event_log import Received
from projections.positions import Place
from projections.writer import Writer

READ_MODELS = "read_models"
"""The schema that queries read."""

PROJECTING = 0x70726F6A656374
"""An advisory lock ("project"): shared by every batch, exclusive while a rebuild swaps tables."""


class Batch:
    """Applies what was received to the record and to every read model."""

    def __init__(self, database: Database, recorded: Callable[[Collection[UUID]], None] | None = None) -> None:
        """``recorded`` is told whose records have new lines, once they are committed."""
        self._database = database
        self._recorded = recorded
        self._writer = Writer(PROJECTIONS, READ_MODELS)

    async def apply(
        self, received: Sequence[Received], passed: Sequence[Message], least: Mapping[Place, Position] | None = None
    ) -> int:
        """Record and fold what is new of ``received``, and note that ``passed`` is behind us.

        ``passed`` are all messages that need not come again: those of ``received``, and those set aside. Applying
        anything a second time changes nothing. Returns how many were new. Raises DatabaseUnavailable, and SetBack where
        what is behind us does not reach ``least``.
        """
        began = datetime.now(UTC)
        async with self._database.system() as session:
            await session.execute("SELECT pg_advisory_xact_lock_shared(:projecting)", projecting=PROJECTING)
            # First: a fold that misses what came before could fail in any way.
            await positions.advance(session, positions.furthest(passed), READ_MODELS, least)
            fresh = await event_log.append(session, received, READ_MODELS)
            await self._writer.apply(session, fresh)
        lag.taken_in(fresh)
        tracing.folded(fresh, began)
        if fresh and self._recorded is not None:
            self._recorded({envelope.tenantid for envelope in fresh})
        return len(fresh)
