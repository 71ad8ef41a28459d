"""Lines of batches on their way to become prompts, as they are kept. Each question is asked in its tenant's session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from backplane.ports.database import Row, TenantSession
from backplane.ports.identifiers import new_id
from backplane.security.content import DataKey
from command_api import outbox
from command_api.prompt import OfBatch
from event_schemas.batches import (
    BatchCompleted,
    BatchExpired,
    BatchLinesFailed,
    FailedLine,
    LineFailureContent,
    LineFailuresContent,
)
from event_schemas.envelope import Envelope
from event_schemas.payload import Payload, Sealed

SOURCE = "/parley/command_api"
ACTOR = "command_api"
"""Who says what became of lines and batches."""

_MOST_OF_AN_EVENT = 100


@dataclass(frozen=True, slots=True)
class Line:
    number: int
    sealed: Sealed
    """A BatchLineContent."""
    was_begun: bool
    """It is a prompt, and whoever made it one did not come to say so."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A line that will never be a prompt."""

    line: int
    code: str
    custom_id: str | None
    message: str


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a batch has come."""

    user_id: UUID | None
    key_id: UUID
    is_cancelled: bool
    is_expired: bool
    is_due: bool
    """Its window is over."""
    waits: bool
    """There are lines that are no prompts yet."""
    runs: bool
    """There are prompts of it that have not ended."""
    wrapped: bytes | None
    """Its data key; None where that was erased."""


async def look(session: TenantSession, batch_id: UUID, taker: UUID) -> Standing | None:
    """Forget lines that have ended, and say what is left. None where the batch is not ``taker``'s any more."""
    await session.execute(
        "DELETE FROM control.batch_lines l USING read_models.generations g"
        " WHERE l.batch_id = :id AND g.tenant_id = l.tenant_id AND g.id = l.generation_id AND g.ended_at IS NOT NULL",
        id=batch_id,
    )
    row = await session.one(
        """SELECT b.user_id, b.key_id, b.cancelled_at IS NOT NULL AS is_cancelled,
                  b.expired_at IS NOT NULL AS is_expired, b.expires_at <= now() AS is_due, k.wrapped,
                  EXISTS (SELECT FROM control.batch_lines l
                          WHERE l.batch_id = b.batch_id AND l.generation_id IS NULL) AS waits,
                  EXISTS (SELECT FROM control.batch_lines l
                          WHERE l.batch_id = b.batch_id AND l.generation_id IS NOT NULL) AS runs
           FROM control.batches b LEFT JOIN control.data_keys k
             ON k.tenant_id = b.tenant_id AND k.conversation_id = b.batch_id AND k.generation_id IS NULL
           WHERE b.batch_id = :id AND b.taker = :taker""",
        id=batch_id,
        taker=taker,
    )
    return None if row is None else Standing(**row)


async def waiting(session: TenantSession, batch_id: UUID, most: int) -> list[Line]:
    """The first ones that are no prompts yet."""
    rows = await session.all(
        "SELECT l.line, l.sealed, i.key IS NOT NULL AS was_begun"
        " FROM (SELECT tenant_id, line, sealed FROM control.batch_lines"
        "       WHERE batch_id = :id AND generation_id IS NULL ORDER BY line LIMIT :most) l"
        " LEFT JOIN control.idempotency i ON i.tenant_id = l.tenant_id AND i.key = CAST(:first AS text) || l.line"
        " ORDER BY l.line",
        id=batch_id,
        most=most,
        first=OfBatch(batch_id, 0, "").idempotency_key[:-1],
    )
    return [Line(row["line"], Sealed.model_validate(row["sealed"]), row["was_begun"]) for row in rows]


async def open_by_pool(session: TenantSession) -> dict[str, int]:
    """How many lines of all of the tenant's batches are prompts that have not ended."""
    rows = await session.all(
        "SELECT pool, count(*) AS number FROM control.batch_lines"
        " WHERE tenant_id = :tenant_id AND generation_id IS NOT NULL GROUP BY pool",
        tenant_id=session.tenant_id,
    )
    return {row["pool"]: row["number"] for row in rows}


async def began(session: TenantSession, batch_id: UUID, line: int, generation_id: UUID, pool: str) -> None:
    """It is a prompt; what it said is not kept here any more."""
    await session.execute(
        "UPDATE control.batch_lines SET sealed = NULL, generation_id = :generation_id, pool = :pool"
        " WHERE batch_id = :id AND line = :line",
        id=batch_id,
        line=line,
        generation_id=generation_id,
        pool=pool,
    )


async def fail(session: TenantSession, batch_id: UUID, failures: Sequence[Failure], key: DataKey | None) -> None:
    """Decide that these will never be prompts, each once. ``key`` is None where the batch's was erased."""
    rows = await session.all(
        "DELETE FROM control.batch_lines WHERE batch_id = :id AND line = ANY(CAST(:lines AS integer[]))"
        " AND generation_id IS NULL RETURNING line",
        id=batch_id,
        lines=[one.line for one in failures],
    )
    waited = {row["line"] for row in rows}
    failed = [one for one in failures if one.line in waited]
    for begin in range(0, len(failed), _MOST_OF_AN_EVENT):
        some = failed[begin : begin + _MOST_OF_AN_EVENT]
        said = tuple(LineFailureContent(custom_id=one.custom_id, message=one.message) for one in some)
        event = BatchLinesFailed(
            batch_id=batch_id,
            lines=tuple(FailedLine(line=one.line, code=one.code) for one in some),
            content=None if key is None else key.seal(LineFailuresContent(lines=said)),
        )
        await _tell(session, event)


async def expire(session: TenantSession, batch_id: UUID) -> None:
    """Decide that its window is over."""
    changed = await session.execute(
        "UPDATE control.batches SET expired_at = now()"
        " WHERE batch_id = :id AND expired_at IS NULL AND cancelled_at IS NULL AND ended_at IS NULL",
        id=batch_id,
    )
    if changed:
        await _tell(session, BatchExpired(batch_id=batch_id))


async def complete(session: TenantSession, batch_id: UUID) -> None:
    """Decide that it is over, unless a line of it is left."""
    row = await session.one(
        "UPDATE control.batches SET ended_at = now(), taker = NULL, lease_until = NULL"
        " WHERE batch_id = :id AND ended_at IS NULL"
        " AND NOT EXISTS (SELECT FROM control.batch_lines l WHERE l.batch_id = :id) RETURNING total",
        id=batch_id,
    )
    if row is not None:
        answered = await session.one(
            "SELECT count(*) AS number FROM read_models.generations WHERE batch_id = :id AND status = 'completed'",
            id=batch_id,
        )
        completed = 0 if answered is None else answered["number"]
        event = BatchCompleted(batch_id=batch_id, completed=completed, failed=row["total"] - completed)
        await _tell(session, event)


async def running(session: TenantSession, batch_id: UUID) -> list[UUID]:
    """Conversations of its prompts that have not ended, as far as the read models know."""
    rows: list[Row] = await session.all(
        "SELECT conversation_id FROM read_models.generations WHERE batch_id = :id AND ended_at IS NULL", id=batch_id
    )
    return [row["conversation_id"] for row in rows]


async def give_back(session: TenantSession, batch_id: UUID, taker: UUID, pause_s: float) -> None:
    """The lease; after ``pause_s`` it may be taken again."""
    await session.execute(
        "UPDATE control.batches SET taker = NULL, lease_until = NULL,"
        " next_try_at = statement_timestamp() + make_interval(secs => :pause_s)"
        " WHERE batch_id = :id AND taker = :taker",
        id=batch_id,
        taker=taker,
        pause_s=pause_s,
    )


async def _tell(session: TenantSession, event: Payload) -> None:
    told = Envelope.first(event, id=new_id(), source=SOURCE, tenant_id=session.tenant_id, actor=ACTOR)
    await outbox.add(session, told)
