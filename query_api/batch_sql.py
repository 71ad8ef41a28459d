"""The SQL of batches. Every question is asked in a session that sees one tenant, and names that tenant too."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from backplane.ports.database import Row, TenantSession
from query_api.sql import MINE_BY_KEY, WRAPPED, Eyes

# How its lines go is counted where their generations stand, so no line can count twice.
_BATCH = """
    SELECT b.*, k.wrapped, g.begun, g.completed, g.ended - g.completed + f.number AS failed, f.number AS never_begun
    FROM ({batches}) b
    LEFT JOIN control.data_keys k ON k.tenant_id = b.tenant_id AND k.conversation_id = b.id AND k.generation_id IS NULL
    CROSS JOIN LATERAL (
      SELECT count(*) AS begun, count(*) FILTER (WHERE g.ended_at IS NOT NULL) AS ended,
             count(*) FILTER (WHERE g.status = 'completed') AS completed
      FROM read_models.generations g WHERE g.tenant_id = b.tenant_id AND g.batch_id = b.id) g
    CROSS JOIN LATERAL (
      SELECT coalesce(sum(f.number), 0)::bigint AS number
      FROM read_models.batch_failures f WHERE f.tenant_id = b.tenant_id AND f.batch_id = b.id) f
    ORDER BY b.id DESC
"""

_MINE = f"""SELECT * FROM read_models.batches
    WHERE tenant_id = :tenant AND NOT deleted AND created_at IS NOT NULL AND {MINE_BY_KEY}"""  # noqa: S608 - made of this module's own text


async def batch(session: TenantSession, eyes: Eyes, batch_id: UUID) -> Row | None:
    """With its data key, ``wrapped``, None where it is gone."""
    return await session.one(
        _BATCH.format(batches=f"{_MINE} AND id = :id"), tenant=session.tenant_id, id=batch_id, **eyes.parameters()
    )


async def batches(session: TenantSession, eyes: Eyes, *, before: UUID | None, limit: int) -> list[Row]:
    """Newest first."""
    return await session.all(
        _BATCH.format(
            batches=f"{_MINE} AND (CAST(:before AS uuid) IS NULL OR id < :before) ORDER BY id DESC LIMIT :limit"
        ),
        tenant=session.tenant_id,
        before=before,
        limit=limit,
        **eyes.parameters(),
    )


Ended = Literal["completed", "otherwise"]

_LINES = f"""
    SELECT g.*, m.prompt, m.answer, coalesce(m.erased, false) AS erased, {WRAPPED}
    FROM (SELECT * FROM read_models.generations
          WHERE tenant_id = :tenant AND batch_id = :id AND batch_line > :after AND ended_at IS NOT NULL
            AND (status = 'completed') = :completed
          ORDER BY batch_line LIMIT :limit) g
    LEFT JOIN read_models.messages m ON m.tenant_id = g.tenant_id AND m.id = g.id
    ORDER BY g.batch_line
"""  # noqa: S608 - made of this module's own text


async def lines(session: TenantSession, batch_id: UUID, how: Ended, *, after: int, limit: int) -> list[Row]:
    """Lines that were prompts and ended so, in order, with what was written as it is stored."""
    return await session.all(
        _LINES, tenant=session.tenant_id, id=batch_id, completed=how == "completed", after=after, limit=limit
    )


async def failures(session: TenantSession, batch_id: UUID, *, after: int, limit: int) -> list[Row]:
    """Lines that were never prompts, in order of the first ones of each row."""
    return await session.all(
        "SELECT first_line, failed, content FROM read_models.batch_failures"
        " WHERE tenant_id = :tenant AND batch_id = :id AND first_line > :after ORDER BY first_line LIMIT :limit",
        tenant=session.tenant_id,
        id=batch_id,
        after=after,
        limit=limit,
    )
