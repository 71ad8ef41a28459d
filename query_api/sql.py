"""All SQL of the query API. Every question is asked in a session that sees one tenant, and names that tenant too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from backplane.ports.database import Row, TenantSession
from backplane.security.chain import BEGINNING, Head
from backplane.security.checkpoint import Checkpoint
from backplane.security.principal import Principal
from query_api.cursors import ConversationCursor

Grouping = Literal["model", "user", "key", "day", "paid_by", "persona"]


@dataclass(frozen=True, slots=True)
class Eyes:
    """Whose rows may be seen within the tenant: everybody's, those of a user, or those of a key that has no user."""

    everybody: bool
    user_id: UUID | None
    key_id: UUID

    @classmethod
    def of(cls, principal: Principal) -> Eyes:
        return cls(principal.may("conversations.all"), principal.user_id, principal.key_id)

    def see(self, owner: Mapping[str, Any]) -> bool:
        """Whether they may see what belongs to this ``user_id`` and ``key_id``; not where it names no key."""
        if "key_id" not in owner:
            return False
        if self.everybody:
            return True
        if self.user_id is not None:
            return bool(owner["user_id"] == str(self.user_id))
        return owner["user_id"] is None and bool(owner["key_id"] == str(self.key_id))

    def parameters(self) -> Row:
        return {"everybody": self.everybody, "user_id": self.user_id, "key_id": self.key_id}


_MINE_BY_USER = "(:everybody OR user_id IS NOT DISTINCT FROM CAST(:user_id AS uuid))"
MINE_BY_KEY = (
    "(:everybody OR user_id = CAST(:user_id AS uuid)"
    " OR CAST(:user_id AS uuid) IS NULL AND user_id IS NULL AND key_id = CAST(:key_id AS uuid))"
)

_PLACE = "CASE WHEN :placed AND g.status = 'queued' THEN control.queue_place(g.id) END AS place"

# Of a prompt whose content is not kept, its own key while it has one.
WRAPPED = """(SELECT k.wrapped FROM control.data_keys k
            WHERE k.tenant_id = g.tenant_id AND k.conversation_id = g.conversation_id
              AND (k.generation_id IS NULL OR k.generation_id = g.id)
            ORDER BY k.generation_id NULLS LAST LIMIT 1) AS wrapped"""

_GENERATION = f"""
    SELECT g.id, g.conversation_id, g.status, g.attempt, g.model, g.asked_model, g.parameters, g.finish_reason,
           g.reason, g.detail, g.input_tokens, g.output_tokens, g.cached_input_tokens, g.reasoning_tokens,
           g.usage_source, g.cost_usd, g.served_pool, g.served_model, g.first_token_ms, g.duration_ms, g.created_at,
           g.started_at, g.ended_at, g.purpose, g.left_out, g.persona, g.persona_version, m.prompt, m.answer,
           coalesce(m.erased, false) AS erased, {WRAPPED}, {_PLACE}
    FROM (SELECT * FROM read_models.generations WHERE tenant_id = :tenant AND id = :id AND {MINE_BY_KEY}) g
    LEFT JOIN read_models.messages m ON m.tenant_id = g.tenant_id AND m.id = g.id
    WHERE NOT EXISTS (
        SELECT FROM read_models.conversations c
        WHERE c.tenant_id = g.tenant_id AND c.id = g.conversation_id AND c.deleted)
"""  # noqa: S608 - made of this module's own text


async def generation(session: TenantSession, eyes: Eyes, generation_id: UUID) -> Row | None:
    """With what was written as it is stored, and its data key: ``wrapped``, None where it is gone."""
    return await session.one(_GENERATION, tenant=session.tenant_id, id=generation_id, placed=True, **eyes.parameters())


_STANDING = f"""
    SELECT g.conversation_id, g.status, g.attempt, g.model, g.finish_reason, g.reason, g.detail, g.input_tokens,
           g.output_tokens, g.cached_input_tokens, g.reasoning_tokens, g.usage_source, g.cost_usd, g.served_pool,
           g.served_model, m.answer, m.deltas, {WRAPPED}, {_PLACE}, g.is_mine,
           coalesce(c.deleted, false) AS is_erased, g.is_mine AND NOT coalesce(c.deleted, false) AS is_visible
    FROM (SELECT *, coalesce({MINE_BY_KEY}, false) AS is_mine
          FROM read_models.generations WHERE tenant_id = :tenant AND id = :id) g
    LEFT JOIN read_models.messages m ON m.tenant_id = g.tenant_id AND m.id = g.id
    LEFT JOIN read_models.conversations c ON c.tenant_id = g.tenant_id AND c.id = g.conversation_id
"""  # noqa: S608 - made of this module's own text


async def standing(session: TenantSession, eyes: Eyes, generation_id: UUID, *, placed: bool) -> Row | None:
    """How far a generation has come, and whether these eyes may see that: ``is_visible``.

    ``placed`` wants its ``place``, too, which costs a count of the queue. ``wrapped`` is as in ``generation``.
    """
    return await session.one(_STANDING, tenant=session.tenant_id, id=generation_id, placed=placed, **eyes.parameters())


_BATCHES = """
    SELECT first_seq, count, content FROM read_models.token_batches
    WHERE tenant_id = :tenant AND generation_id = :id AND attempt = :attempt AND first_seq + count - 1 > :after
    ORDER BY first_seq
"""


async def token_batches(session: TenantSession, generation_id: UUID, attempt: int, after: int) -> list[Row]:
    return await session.all(_BATCHES, tenant=session.tenant_id, id=generation_id, attempt=attempt, after=after)


@dataclass(frozen=True, slots=True)
class _Where:
    """Conditions that apply only where there is something to compare with, so that indexes are used."""

    clauses: list[str] = field(default_factory=list)
    parameters: Row = field(default_factory=dict)

    def and_(self, clause: str, **parameters: object) -> None:
        self.clauses.append(clause)
        self.parameters.update(parameters)

    def __str__(self) -> str:
        return " AND ".join(self.clauses)


_STANDS = "NOT deleted AND updated_at IS NOT NULL"
_LISTED = f"{_STANDS} AND batch_id IS NULL"
_CONVERSATION_COLUMNS = """c.id, c.title, c.user_id, c.last_message_id, c.created_at, c.updated_at, c.state,
    c.forked_from, c.persona, c.persona_version, c.title IS NULL AND c.erased AS erased, k.wrapped"""
_CONVERSATION_KEY = """LEFT JOIN control.data_keys k
    ON k.tenant_id = c.tenant_id AND k.conversation_id = c.id AND k.generation_id IS NULL"""


async def conversations(
    session: TenantSession, eyes: Eyes, *, before: ConversationCursor | None, limit: int
) -> list[Row]:
    """Newest first. ``wrapped`` is as in ``generation``."""
    where = _Where()
    where.and_(f"tenant_id = :tenant AND {_LISTED}", tenant=session.tenant_id, limit=limit)
    where.and_(_MINE_BY_USER, everybody=eyes.everybody, user_id=eyes.user_id)
    if before is not None:
        where.and_("(updated_at, id) < (:before_time, :before_id)", before_time=before.time, before_id=before.id)
    return await session.all(
        f"""SELECT {_CONVERSATION_COLUMNS}
            FROM (SELECT * FROM read_models.conversations
                  WHERE {where} ORDER BY updated_at DESC, id DESC LIMIT :limit) c
            {_CONVERSATION_KEY} ORDER BY c.updated_at DESC, c.id DESC""",  # noqa: S608 - where is this module's
        **where.parameters,
    )


_CONVERSATION = f"""
    SELECT {_CONVERSATION_COLUMNS},
           (SELECT s.content FROM read_models.conversation_summaries s WHERE s.tenant_id = c.tenant_id
              AND s.conversation_id = c.id ORDER BY s.created_at DESC LIMIT 1) AS summary
    FROM (SELECT * FROM read_models.conversations
          WHERE tenant_id = :tenant AND id = :id AND {_STANDS} AND {_MINE_BY_USER}) c
    {_CONVERSATION_KEY}
"""  # noqa: S608 - made of this module's own text


async def conversation(session: TenantSession, eyes: Eyes, conversation_id: UUID) -> Row | None:
    return await session.one(
        _CONVERSATION,
        tenant=session.tenant_id,
        id=conversation_id,
        everybody=eyes.everybody,
        user_id=eyes.user_id,
    )


_GROUPS: dict[Grouping, str] = {
    "model": "model",
    "user": "user_id::text",
    "key": "key_id::text",
    "day": "to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
    "paid_by": "paid_by",
    "persona": "persona",
}


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Attempts that ended at ``since <= at < until``, of what is given besides."""

    since: datetime
    until: datetime
    user_id: UUID | None = None
    key_id: UUID | None = None
    model: str | None = None
    persona: str | None = None

    def where(self, session: TenantSession, eyes: Eyes) -> _Where:
        where = _Where()
        span = {"since": self.since, "until": self.until}
        where.and_("tenant_id = :tenant AND at >= :since AND at < :until", tenant=session.tenant_id, **span)
        where.and_(MINE_BY_KEY, **eyes.parameters())
        for column in ("user_id", "key_id", "model", "persona"):
            if (value := getattr(self, column)) is not None:
                where.and_(f"{column} = :of_{column}", **{f"of_{column}": value})
        return where


async def usage(session: TenantSession, eyes: Eyes, chosen: UsageFilter, group_by: Grouping) -> list[Row]:
    where = chosen.where(session, eyes)
    return await session.all(
        f"""SELECT {_GROUPS[group_by]} AS group,
                   count(DISTINCT generation_id) FILTER (WHERE inputs IS NULL) AS generations,
                   count(inputs) AS embeddings, count(*) AS attempts,
                   sum(input_tokens)::bigint AS input_tokens, sum(output_tokens)::bigint AS output_tokens,
                   sum(cached_input_tokens)::bigint AS cached_input_tokens,
                   sum(reasoning_tokens)::bigint AS reasoning_tokens,
                   (count(*) FILTER (WHERE source = 'estimated')) AS estimated_attempts,
                   sum(cost_usd) AS cost_usd,
                   (count(*) FILTER (WHERE cost_usd IS NULL)) AS attempts_of_unknown_cost
            FROM read_models.usage WHERE {where} GROUP BY 1 ORDER BY 1 NULLS LAST""",  # noqa: S608 - see _GROUPS, _Where
        **where.parameters,
    )


async def attempts(
    session: TenantSession, eyes: Eyes, chosen: UsageFilter, *, after: Row | None, limit: int
) -> list[Row]:
    """Single attempts, oldest first, beginning after the one given."""
    where = chosen.where(session, eyes)
    if after is not None:
        place = {f"after_{name}": after[name] for name in ("at", "generation_id", "attempt")}
        where.and_("(at, generation_id, attempt) > (:after_at, :after_generation_id, :after_attempt)", **place)
    return await session.all(
        f"""SELECT at, generation_id, attempt, user_id, key_id, model, pool, backend, served_model, paid_by, persona,
                   source, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, cost_usd, inputs
            FROM read_models.usage WHERE {where} ORDER BY at, generation_id, attempt LIMIT :limit""",  # noqa: S608
        limit=limit,
        **where.parameters,
    )


async def provider_keys(session: TenantSession) -> list[Row]:
    """Those that are not retired, oldest first. Control-plane rows, not a read model: they hold at once."""
    return await session.all(
        "SELECT key_id AS id, pool, name, fingerprint, added_at FROM control.provider_keys"
        " WHERE tenant_id = :tenant AND retired_at IS NULL ORDER BY added_at, key_id",
        tenant=session.tenant_id,
    )


@dataclass(frozen=True, slots=True)
class EventFilter:
    type: str | None = None
    subject: str | None = None
    actor: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    correlation_id: UUID | None = None

    def given(self) -> dict[str, str]:
        """What is filtered by, as text."""
        named = {name: getattr(self, name) for name in self.__slots__}
        return {
            name: value.isoformat() if isinstance(value, datetime) else str(value)
            for name, value in named.items()
            if value is not None
        }


async def events(
    session: TenantSession, chosen: EventFilter, *, after: int, up_to: int | None, limit: int
) -> Sequence[Row]:
    """Lines of the log in order, of those with ``after < sequence`` and, if given, ``sequence <= up_to``."""
    where = _Where()
    where.and_("tenant_id = :tenant AND sequence > :after", tenant=session.tenant_id, after=after, limit=limit)
    if up_to is not None:
        where.and_("sequence <= :up_to", up_to=up_to)
    for column in ("type", "subject", "actor", "correlation_id"):
        if (value := getattr(chosen, column)) is not None:
            where.and_(f"{column} = :{column}", **{column: value})
    if chosen.since is not None:
        where.and_("time >= :since", since=chosen.since)
    if chosen.until is not None:
        where.and_("time < :until", until=chosen.until)
    return await session.all(
        f"""SELECT sequence, hash, envelope FROM read_models.event_log
            WHERE {where} ORDER BY sequence LIMIT :limit""",  # noqa: S608 - where is this module's
        **where.parameters,
    )


async def newest_event(session: TenantSession) -> Head:
    """The newest line of the tenant's log; its beginning where there is none."""
    row = await session.one(
        "SELECT sequence, hash FROM read_models.tenant_heads WHERE tenant_id = :tenant", tenant=session.tenant_id
    )
    return BEGINNING if row is None else Head(row["sequence"], bytes(row["hash"]))


async def beginning(session: TenantSession) -> Checkpoint | None:
    """What signs where the tenant's log begins; None where nothing of it was pruned."""
    row = await session.one(
        "SELECT * FROM read_models.checkpoints WHERE tenant_id = :tenant AND kind = 'pruned'"
        " ORDER BY sequence DESC LIMIT 1",
        tenant=session.tenant_id,
    )
    return None if row is None else Checkpoint.of(row)


async def checkpoints(
    session: TenantSession, *, after: int = 0, up_to: int | None = None, limit: int | None = None
) -> list[Checkpoint]:
    """Those of lines with ``after < sequence`` and, if given, ``sequence <= up_to``, in order; as many as ``limit``."""
    rows = await session.all(
        """SELECT * FROM read_models.checkpoints
           WHERE tenant_id = :tenant AND kind = 'checkpoint' AND sequence > :after
             AND sequence <= coalesce(CAST(:up_to AS bigint), sequence)
           ORDER BY sequence LIMIT CAST(:limit AS bigint)""",
        tenant=session.tenant_id,
        after=after,
        up_to=up_to,
        limit=limit,
    )
    return [Checkpoint.of(row) for row in rows]


async def newest_checkpoint(session: TenantSession) -> Checkpoint | None:
    row = await session.one(
        "SELECT * FROM read_models.checkpoints WHERE tenant_id = :tenant AND kind = 'checkpoint'"
        " ORDER BY sequence DESC LIMIT 1",
        tenant=session.tenant_id,
    )
    return None if row is None else Checkpoint.of(row)
