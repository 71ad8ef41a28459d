"""Lines of batches that never became prompts: which ones, why, and as what they were known. One row an event."""

from __future__ import annotations

from collections.abc import Sequence

from event_schemas.batches import BatchLinesFailed
from event_schemas.codec import AnyEnvelope
from projections.table import Key, Projection, Row, Selector, Table

TABLE = Table(
    name="batch_failures",
    columns={
        "tenant_id": "uuid",
        "batch_id": "uuid",
        "first_line": "integer",
        "number": "integer",
        "failed": "jsonb",
        "content": "jsonb",
    },
    key=("tenant_id", "batch_id", "first_line"),
)


def _affects(envelope: AnyEnvelope) -> Sequence[Selector]:
    match envelope.data:
        case BatchLinesFailed(batch_id=batch_id, lines=lines):
            return ((envelope.tenantid, batch_id, lines[0].line),)
    return ()


def _fold(key: Key, row: Row | None, envelope: AnyEnvelope, _: Row | None) -> Row | None:
    match envelope.data:
        case BatchLinesFailed() as failed:
            return dict(zip(TABLE.key, key, strict=True)) | {
                "number": len(failed.lines),
                "failed": [one.model_dump() for one in failed.lines],
                "content": failed.content and failed.content.model_dump(),
            }
    return row


PROJECTION = Projection(table=TABLE, handles=frozenset((BatchLinesFailed,)), affects=_affects, fold=_fold)
