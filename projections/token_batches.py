"""Token batches: what a generation that still runs has said so far, for followers who find the token stream gone.

They are stored where a conversation keeps nothing, too: they go when the generation ends, as their key does.
"""

from __future__ import annotations

from collections.abc import Sequence

from event_schemas.codec import AnyEnvelope
from event_schemas.generation import (
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
    TokensEmitted,
)
from projections import generations
from projections.lifecycle import ENDED, ended
from projections.table import Beside, Drop, Key, Projection, Row, Selector, Table

TABLE = Table(
    name="token_batches",
    columns={
        "generation_id": "uuid",
        "attempt": "integer",
        "first_seq": "integer",
        "tenant_id": "uuid",
        "count": "integer",
        "content": "jsonb",
    },
    key=("tenant_id", "generation_id", "attempt", "first_seq"),
    selected_by=("generation_id",),
)


def _affects(envelope: AnyEnvelope) -> Sequence[Selector]:
    match envelope.data:
        case TokensEmitted() as tokens:
            return ((envelope.tenantid, tokens.generation_id, tokens.attempt, tokens.first_seq),)
        case (
            GenerationCompleted(generation_id=generation_id)
            | GenerationFailed(generation_id=generation_id)
            | GenerationCancelled(generation_id=generation_id)
        ):
            return (Drop(envelope.tenantid, "generation_id", generation_id),)
    return ()


def _beside(envelope: AnyEnvelope) -> Beside | None:
    if isinstance(envelope.data, TokensEmitted):
        return generations.beside(envelope.tenantid, envelope.data.generation_id)
    return None


def _fold(key: Key, row: Row | None, envelope: AnyEnvelope, generation: Row | None) -> Row | None:
    tokens = envelope.data
    if not isinstance(tokens, TokensEmitted) or ended(generation):
        return None
    if row is not None and row["count"] >= tokens.count:
        return row
    return {
        "tenant_id": key[0],
        "generation_id": tokens.generation_id,
        "attempt": tokens.attempt,
        "first_seq": tokens.first_seq,
        "count": tokens.count,
        "content": tokens.content.model_dump(),
    }


PROJECTION = Projection(
    table=TABLE,
    handles=frozenset((TokensEmitted, *ENDED)),
    affects=_affects,
    fold=_fold,
    beside=_beside,
    looks_at=(generations.TABLE.name,),
)
