"""Deleting the oldest lines of tenants' records. What is left still verifies: it begins at a signed hash."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from uuid import UUID

from backplane.ports.database import Database, DatabaseUnavailable
from backplane.security.chain import Head
from backplane.security.checkpoint import SigningKey
from projections import checkpoints
from projections.batch import PROJECTING, READ_MODELS
from projections.event_log import PAGE

logger = logging.getLogger(__name__)

PRUNING = 0x7072756E65
"""An advisory lock ("prune"): exclusive while lines are deleted, shared by who walks the record."""

_EVERY_S = 3600.0


async def keep_pruning(database: Database, key: SigningKey, days: int, stop: asyncio.Event) -> None:
    """Delete lines that are older than ``days``, once an hour, until ``stop`` is set. Outages are waited out."""
    while not stop.is_set():
        try:
            pruned = await prune(database, key, datetime.now(UTC) - timedelta(days=days))
            if pruned:
                logger.info("pruned %d lines of the record", pruned, extra={"action": "pruned"})
        except DatabaseUnavailable as error:
            logger.warning("pruning waits: %s", error, extra={"action": "pruning_waits"})
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _EVERY_S)


async def prune(database: Database, key: SigningKey, before: datetime) -> int:
    """Delete each tenant's lines up to the first that is not older than ``before``; returns how many.

    Stops early where somebody walks the record. Raises DatabaseUnavailable.
    """
    async with database.system() as session:
        heads = await session.all(f"SELECT tenant_id FROM {READ_MODELS}.tenant_heads ORDER BY tenant_id")  # noqa: S608
    total = 0
    for head in heads:
        while deleted := await _prune_page(database, key, head["tenant_id"], before):
            total += deleted
    return total


async def _prune_page(database: Database, key: SigningKey, tenant_id: UUID, before: datetime) -> int:
    async with database.system() as session:
        # A rebuild that has begun must find at its end what it found at its beginning.
        await session.execute("SELECT pg_advisory_xact_lock_shared(:projecting)", projecting=PROJECTING)
        alone = await session.one("SELECT pg_try_advisory_xact_lock(:pruning) AS alone", pruning=PRUNING)
        assert alone is not None
        if not alone["alone"]:
            return 0
        oldest = await session.all(
            f"""SELECT sequence, hash, "time" FROM {READ_MODELS}.event_log
                WHERE tenant_id = :tenant_id ORDER BY sequence LIMIT :page""",  # noqa: S608
            tenant_id=tenant_id,
            page=PAGE,
        )
        old = list(takewhile(lambda line: line["time"] < before, oldest))
        if not old:
            return 0
        last = Head(old[-1]["sequence"], old[-1]["hash"])
        await checkpoints.store(session, [key.sign(tenant_id, last, kind="pruned")], READ_MODELS)
        return await session.execute(
            f"DELETE FROM {READ_MODELS}.event_log WHERE tenant_id = :tenant_id AND sequence <= :last",  # noqa: S608
            tenant_id=tenant_id,
            last=last.sequence,
        )
