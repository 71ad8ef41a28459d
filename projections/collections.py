"""Collections: what they are called, and what makes vectors of their documents."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from event_schemas.codec import AnyEnvelope
from event_schemas.knowledge import CollectionChanged, CollectionCreated, CollectionDeleted
from projections.table import Beside, Key, Projection, Row, Selector, Table

TABLE = Table(
    name="collections",
    columns={
        "id": "uuid",
        "tenant_id": "uuid",
        "name": "text",
        "embedder": "text",
        "language": "text",
        "content": "jsonb",
        "created_at": "timestamptz",
        "changed_at": "timestamptz",
        "deleted": "boolean",
    },
    key=("tenant_id", "id"),
)


def beside(tenant_id: UUID, collection_id: UUID) -> Beside:
    """How other projections look at a collection's row."""
    return Beside(TABLE.name, (tenant_id, collection_id))


def _affects(envelope: AnyEnvelope) -> Sequence[Selector]:
    match envelope.data:
        case CollectionCreated() | CollectionChanged() | CollectionDeleted():
            return ((envelope.tenantid, envelope.data.collection_id),)
    return ()


def _fold(key: Key, row: Row | None, envelope: AnyEnvelope, _: Row | None) -> Row | None:
    row = row or dict.fromkeys(TABLE.columns) | {"tenant_id": key[0], "id": key[1], "deleted": False}
    if row["deleted"]:
        return row
    match envelope.data:
        case CollectionCreated() as made:
            return {
                **row,
                "name": made.name,
                "embedder": made.embedder,
                "language": made.language,
                "content": made.content and made.content.model_dump(),
                "created_at": envelope.time,
                "changed_at": envelope.time,
            }
        case CollectionChanged() as changed:
            content = row["content"] if changed.content is None else changed.content.model_dump()
            return {**row, "name": changed.name or row["name"], "content": content, "changed_at": envelope.time}
        case _:
            return {**row, "name": None, "content": None, "deleted": True, "changed_at": envelope.time}


PROJECTION = Projection(
    table=TABLE,
    handles=frozenset((CollectionCreated, CollectionChanged, CollectionDeleted)),
    affects=_affects,
    fold=_fold,
)
