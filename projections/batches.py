"""Batches: what was submitted, and what became of it as a whole. How its lines go is told by their generations."""

from __future__ import annotations

from collections.abc import Sequence

from event_schemas.batches import BatchCancelled, BatchCompleted, BatchDeleted, BatchExpired, BatchSubmitted
from event_schemas.codec import AnyEnvelope
from projections.table import Key, Projection, Row, Selector, Table

TABLE = Table(
    name="batches",
    columns={
        "id": "uuid",
        "tenant_id": "uuid",
        "user_id": "uuid",
        "key_id": "uuid",
        "total": "integer",
        "content": "jsonb",
        "created_at": "timestamptz",
        "expires_at": "timestamptz",
        "cancelled_at": "timestamptz",
        "expired_at": "timestamptz",
        "ended_at": "timestamptz",
        "deleted": "boolean",
    },
    key=("tenant_id", "id"),
)


def _affects(envelope: AnyEnvelope) -> Sequence[Selector]:
    match envelope.data:
        case (
            BatchSubmitted(batch_id=batch_id)
            | BatchCancelled(batch_id=batch_id)
            | BatchExpired(batch_id=batch_id)
            | BatchCompleted(batch_id=batch_id)
            | BatchDeleted(batch_id=batch_id)
        ):
            return ((envelope.tenantid, batch_id),)
    return ()


def _fold(key: Key, row: Row | None, envelope: AnyEnvelope, _: Row | None) -> Row | None:
    row = row or dict.fromkeys(TABLE.columns) | {"tenant_id": key[0], "id": key[1], "deleted": False}
    match envelope.data:
        case BatchSubmitted() as submitted:
            return row | {
                "user_id": submitted.user_id,
                "key_id": submitted.key_id,
                "total": submitted.total,
                "content": submitted.content.model_dump(),
                "created_at": envelope.time,
                "expires_at": submitted.expires_at,
            }
        case BatchCancelled():
            return row | {"cancelled_at": envelope.time}
        case BatchExpired():
            return row | {"expired_at": envelope.time}
        case BatchCompleted():
            return row | {"ended_at": envelope.time}
    return row | {"deleted": True}


PROJECTION = Projection(
    table=TABLE,
    handles=frozenset((BatchSubmitted, BatchCancelled, BatchExpired, BatchCompleted, BatchDeleted)),
    affects=_affects,
    fold=_fold,
)
