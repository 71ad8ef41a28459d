"""Generations: what was asked for, how far it has come, how it ended and what it used."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from event_schemas.codec import AnyEnvelope
from event_schemas.generation import (
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
    GenerationRestarted,
    GenerationStarted,
    SubmitPrompt,
    Terminal,
)
from projections.lifecycle import QUEUED, STAGES, advance, ended
from projections.persona_versions import REF, ref_row
from projections.table import Beside, Key, Projection, Row, Selector, Table

TABLE = Table(
    name="generations",
    columns={
        "id": "uuid",
        "tenant_id": "uuid",
        "conversation_id": "uuid",
        "user_id": "uuid",
        "key_id": "uuid",
        "model": "text",
        "asked_model": "text",
        "pool": "text",
        "parameters": "jsonb",
        "status": "text",
        "attempt": "integer",
        "finish_reason": "text",
        "reason": "text",
        "detail": "text",
        "input_tokens": "integer",
        "output_tokens": "integer",
        "cached_input_tokens": "integer",
        "reasoning_tokens": "integer",
        "usage_source": "text",
        "cost_usd": "numeric",
        "reserved_tokens": "bigint",
        "reserved_nano_usd": "bigint",
        "served_pool": "text",
        "served_model": "text",
        "first_token_ms": "integer",
        "duration_ms": "integer",
        "created_at": "timestamptz",
        "started_at": "timestamptz",
        "ended_at": "timestamptz",
        **REF,
        "purpose": "text",
        "left_out": "integer",
        "batch_id": "uuid",
        "batch_line": "integer",
    },
    key=("tenant_id", "id"),
)


def beside(tenant_id: UUID, generation_id: UUID) -> Beside:
    """How other projections look at a generation's row."""
    return Beside(TABLE.name, (tenant_id, generation_id))


def _affects(envelope: AnyEnvelope) -> Sequence[Selector]:
    match envelope.data:
        case (
            SubmitPrompt(generation_id=generation_id, fell_back=())
            | GenerationStarted(generation_id=generation_id)
            | GenerationRestarted(generation_id=generation_id)
            | GenerationCompleted(generation_id=generation_id)
            | GenerationFailed(generation_id=generation_id)
            | GenerationCancelled(generation_id=generation_id)
        ):
            return ((envelope.tenantid, generation_id),)
    return ()


def _fold(key: Key, row: Row | None, envelope: AnyEnvelope, _: Row | None) -> Row | None:
    match envelope.data:
        case SubmitPrompt() as prompt:
            row = advance(row or _new(key, prompt.conversation_id), prompt)
            row = {
                **row,
                "user_id": prompt.user_id,
                "key_id": prompt.key_id,
                "asked_model": prompt.asked_model,
                "pool": prompt.pool,
                "reserved_tokens": None if prompt.reserved is None else prompt.reserved.tokens,
                "reserved_nano_usd": None if prompt.reserved is None else prompt.reserved.nano_usd,
                "batch_id": prompt.batch_id or row["batch_id"],
                "batch_line": prompt.batch_line or row["batch_line"],
                "parameters": prompt.parameters.model_dump(mode="json"),
                "created_at": envelope.time if row["created_at"] is None else min(row["created_at"], envelope.time),
                **ref_row(prompt.persona),
                "purpose": prompt.purpose,
            }
        case (GenerationStarted() | GenerationRestarted()) as started:
            row = advance(row or _new(key, started.conversation_id), started)
            began = envelope.time if row["started_at"] is None else min(row["started_at"], envelope.time)
            row = {**row, "started_at": began, "purpose": started.purpose}
        case (GenerationCompleted() | GenerationFailed() | GenerationCancelled()) as end:
            row = row or _new(key, end.conversation_id)
            row = row if ended(row) else _ended(advance(row, end), end, envelope)
    return row


def _ended(row: Row, end: Terminal, envelope: AnyEnvelope) -> Row:
    row = {
        **row,
        "user_id": end.user_id,
        "key_id": end.key_id,
        "input_tokens": end.usage.input_tokens,
        "output_tokens": end.usage.output_tokens,
        "cached_input_tokens": end.usage.cached_input_tokens,
        "reasoning_tokens": end.usage.reasoning_tokens,
        "usage_source": end.usage.source,
        "cost_usd": end.usage.cost_usd,
        "served_pool": end.served and end.served.pool,
        "served_model": end.served and end.served.model,
        "ended_at": envelope.time,
        **({} if end.persona is None else ref_row(end.persona)),
        "purpose": end.purpose,
        "left_out": end.left_out,
    }
    match end:
        case GenerationCompleted():
            row["finish_reason"] = end.finish_reason
            row["first_token_ms"] = end.first_token_ms
            row["duration_ms"] = end.duration_ms
        case GenerationFailed():
            row["reason"] = end.reason
            row["detail"] = end.detail
        case GenerationCancelled():
            pass
    return row


def _new(key: Key, conversation_id: UUID) -> Row:
    return dict.fromkeys(TABLE.columns) | {
        "tenant_id": key[0],
        "id": key[1],
        "conversation_id": conversation_id,
        "status": QUEUED,
        "attempt": 0,
        "purpose": "answer",
        "left_out": 0,
    }


PROJECTION = Projection(
    table=TABLE,
    handles=STAGES,
    affects=_affects,
    fold=_fold,
)
