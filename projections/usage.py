"""Usage: the tokens of each attempt; a request for embeddings is one. What a provider said beats what was estimated,
whichever comes first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from event_schemas.codec import AnyEnvelope
from event_schemas.embeddings import EmbeddingsMade
from event_schemas.generation import (
    AttemptLost,
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
)
from projections.lifecycle import ENDED
from projections.table import Key, Projection, Row, Selector, Table

TABLE = Table(
    name="usage",
    columns={
        "generation_id": "uuid",
        "attempt": "integer",
        "tenant_id": "uuid",
        "user_id": "uuid",
        "key_id": "uuid",
        "model": "text",
        "input_tokens": "integer",
        "output_tokens": "integer",
        "cached_input_tokens": "integer",
        "reasoning_tokens": "integer",
        "source": "text",
        "cost_usd": "numeric",
        "pool": "text",
        "backend": "text",
        "served_model": "text",
        "paid_by": "text",
        "at": "timestamptz",
        "persona": "text",
        "inputs": "integer",
    },
    key=("tenant_id", "generation_id", "attempt"),
)


def _affects(envelope: AnyEnvelope) -> Sequence[Selector]:
    match envelope.data:
        case (AttemptLost() | GenerationCompleted() | GenerationFailed() | GenerationCancelled()) as attempt:
            # Attempt 0 is a generation that ended before any attempt began: nothing was used.
            return ((envelope.tenantid, attempt.generation_id, attempt.attempt),) if attempt.attempt else ()
        case EmbeddingsMade() as made:
            return ((envelope.tenantid, made.embedding_id, 1),)
    return ()


def _fold(key: Key, row: Row | None, envelope: AnyEnvelope, _: Row | None) -> Row | None:
    match envelope.data:
        case (AttemptLost() | GenerationCompleted() | GenerationFailed() | GenerationCancelled()) as attempt:
            said: Row = {
                "tenant_id": key[0],
                "generation_id": attempt.generation_id,
                "attempt": attempt.attempt,
                "user_id": attempt.user_id,
                "key_id": attempt.key_id,
                "model": attempt.model,
                "input_tokens": attempt.usage.input_tokens,
                "output_tokens": attempt.usage.output_tokens,
                "cached_input_tokens": attempt.usage.cached_input_tokens,
                "reasoning_tokens": attempt.usage.reasoning_tokens,
                "source": attempt.usage.source,
                "cost_usd": attempt.usage.cost_usd,
                "pool": attempt.served and attempt.served.pool,
                "backend": attempt.served and attempt.served.backend,
                "served_model": attempt.served and attempt.served.model,
                "paid_by": attempt.paid_by,
                "at": envelope.time,
                "persona": attempt.persona and attempt.persona.name,
                "inputs": None,
            }
            return said if row is None else max(row, said, key=_weight)
        case EmbeddingsMade() as made:
            return {
                "tenant_id": key[0],
                "generation_id": made.embedding_id,
                "attempt": 1,
                "user_id": made.user_id,
                "key_id": made.key_id,
                "model": made.model,
                "input_tokens": made.usage.input_tokens,
                "output_tokens": made.usage.output_tokens,
                "cached_input_tokens": made.usage.cached_input_tokens,
                "reasoning_tokens": made.usage.reasoning_tokens,
                "source": made.usage.source,
                "cost_usd": made.usage.cost_usd,
                "pool": None,
                "backend": made.backend,
                "served_model": made.served_model,
                "paid_by": "platform",
                "at": envelope.time,
                "persona": None,
                "inputs": made.inputs,
            }
    return row


def _weight(row: Row) -> tuple[bool, int, int, datetime]:
    return row["source"] == "provider", row["output_tokens"], row["input_tokens"], row["at"]


PROJECTION = Projection(
    table=TABLE,
    handles=frozenset((AttemptLost, EmbeddingsMade, *ENDED)),
    affects=_affects,
    fold=_fold,
)
