"""Signed checkpoints of tenants' records, and what was pruned of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from backplane.ports.database import Database, DatabaseUnavailable, Session
from backplane.security.chain import Head
from backplane.security.checkpoint import Checkpoint, SigningKey
from backplane.settings import RecordSettings

logger = logging.getLogger(__name__)

LOOK_S = 5.0
"""Seconds between two looks for what is due, at most."""

_MOST = 1000
"""Checkpoints that are signed in one transaction, at most."""


class Due(NamedTuple):
    """When a tenant's head is signed: after so many new lines, or with any new line after so many seconds."""

    lines: int
    seconds: float


async def keep_signing(database: Database, key: SigningKey, settings: RecordSettings, stop: asyncio.Event) -> None:
    """Sign what is due until ``stop`` is set. Outages are waited out."""
    due = Due(settings.checkpoint_lines, settings.checkpoint_s)
    while not stop.is_set():
        try:
            while await sign_due(database, key, due, "read_models") == _MOST:
                pass
        except DatabaseUnavailable as error:
            logger.warning("checkpoints wait: %s", error, extra={"action": "checkpoints_wait"})
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), min(LOOK_S, due.seconds))


async def sign_due(database: Database, key: SigningKey, due: Due, schema: str) -> int:
    """Sign the heads of some hundred tenants where that is due; returns how many. Raises DatabaseUnavailable."""
    async with database.system() as session:
        heads = await session.all(
            f"""SELECT h.tenant_id, h.sequence, h.hash
                FROM {schema}.tenant_heads h LEFT JOIN LATERAL (
                  SELECT c.sequence, c."time" FROM {schema}.checkpoints c
                  WHERE c.tenant_id = h.tenant_id AND c.kind = 'checkpoint' ORDER BY c.sequence DESC LIMIT 1) c ON true
                WHERE h.sequence > coalesce(c.sequence, 0)
                  AND (c.sequence IS NULL OR h.sequence - c.sequence >= :lines OR c."time" <= :before)
                ORDER BY h.tenant_id LIMIT :most""",  # noqa: S608
            lines=due.lines,
            before=datetime.now(UTC) - timedelta(seconds=due.seconds),
            most=_MOST,
        )
        signed = [key.sign(head["tenant_id"], Head(head["sequence"], head["hash"])) for head in heads]
        await store(session, signed, schema)
    return len(signed)


async def store(session: Session, signed: Sequence[Checkpoint], schema: str) -> None:
    """Add ``signed``; what another process has signed meanwhile stays."""
    if not signed:
        return
    await session.execute(
        f"""INSERT INTO {schema}.checkpoints (tenant_id, sequence, kind, hash, "time", key, signature)
            SELECT * FROM unnest(CAST(:tenants AS uuid[]), CAST(:sequences AS bigint[]), CAST(:kinds AS text[]),
              CAST(:hashes AS bytea[]), CAST(:times AS timestamptz[]), CAST(:keys AS bytea[]),
              CAST(:signatures AS bytea[]))
            ON CONFLICT DO NOTHING""",  # noqa: S608
        tenants=[each.tenant_id for each in signed],
        sequences=[each.sequence for each in signed],
        kinds=[each.kind for each in signed],
        hashes=[each.head.hash for each in signed],
        times=[each.time for each in signed],
        keys=[bytes.fromhex(each.key) for each in signed],
        signatures=[bytes.fromhex(each.signature) for each in signed],
    )


async def beginnings(session: Session, schema: str) -> dict[UUID, Checkpoint]:
    """Where the record begins, of each tenant whose record was pruned: what signs its last line that is gone."""
    rows = await session.all(
        f"""SELECT DISTINCT ON (tenant_id) * FROM {schema}.checkpoints
            WHERE kind = 'pruned' ORDER BY tenant_id, sequence DESC"""  # noqa: S608
    )
    return {row["tenant_id"]: Checkpoint.of(row) for row in rows}


async def between(session: Session, tenant_id: UUID, after: int, to: int, schema: str) -> dict[int, list[Checkpoint]]:
    """A tenant's checkpoints by sequence, of those with ``after < sequence <= to``."""
    rows = await session.all(
        f"""SELECT * FROM {schema}.checkpoints
            WHERE tenant_id = :tenant_id AND sequence > :after AND sequence <= :to""",  # noqa: S608
        tenant_id=tenant_id,
        after=after,
        to=to,
    )
    found: dict[int, list[Checkpoint]] = {}
    for row in rows:
        found.setdefault(row["sequence"], []).append(Checkpoint.of(row))
    return found
