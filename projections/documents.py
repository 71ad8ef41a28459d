"""Documents of collections, and how far each has come. Its facts come on several partitions, so in any order."""

from __future__ import annotations

from collections.abc import Sequence

from event_schemas.codec import AnyEnvelope
from event_schemas.knowledge import (
    CollectionDeleted,
    DocumentDeleted,
    DocumentIngested,
    IngestDocument,
    IngestionFailed,
    IngestionProgressed,
)
from projections import collections
from projections.table import Beside, Key, Projection, Row, Selector, Table, Where

TABLE = Table(
    name="documents",
    columns={
        "id": "uuid",
        "tenant_id": "uuid",
        "collection_id": "uuid",
        "content": "jsonb",
        "bytes": "integer",
        "added_at": "timestamptz",
        "ingestion_id": "uuid",
        "status": "text",
        "kind": "text",
        "characters": "integer",
        "chunks": "integer",
        "embedded": "integer",
        "reason": "text",
        "detail": "text",
        "changed_at": "timestamptz",
        "deleted": "boolean",
    },
    key=("tenant_id", "id"),
    selected_by=("collection_id",),
)

_STAGES = ("queued", "reading", "embedding", "failed", "ready")
"""Later ones win, within one ingestion."""

_GONE: Row = dict.fromkeys(("content", "bytes", "kind", "characters", "chunks", "reason", "detail")) | {
    "deleted": True,
    "embedded": 0,
}
_BEGUN: Row = dict.fromkeys(("kind", "characters", "chunks", "reason", "detail")) | {"status": "queued", "embedded": 0}
_Ingestion = IngestDocument | IngestionProgressed | DocumentIngested | IngestionFailed


def _affects(envelope: AnyEnvelope) -> Sequence[Selector]:
    match envelope.data:
        case IngestDocument() | IngestionProgressed() | DocumentIngested() | IngestionFailed() | DocumentDeleted():
            return ((envelope.tenantid, envelope.data.document_id),)
        case CollectionDeleted(collection_id=collection_id):
            return (Where(envelope.tenantid, "collection_id", collection_id),)
    return ()


def _beside(envelope: AnyEnvelope) -> Beside | None:
    match envelope.data:
        case IngestDocument() | IngestionProgressed() | DocumentIngested() | IngestionFailed():
            return collections.beside(envelope.tenantid, envelope.data.collection_id)
    return None


def _fold(key: Key, row: Row | None, envelope: AnyEnvelope, collection: Row | None) -> Row | None:
    match envelope.data:
        case CollectionDeleted():
            return None if row is None else {**row, **_GONE, "changed_at": envelope.time}
        case DocumentDeleted(collection_id=collection_id):
            row = row or {**_new(key), "collection_id": collection_id}
            return {**row, **_GONE, "changed_at": envelope.time}
        case (IngestDocument() | IngestionProgressed() | DocumentIngested() | IngestionFailed()) as fact:
            row = row or {**_new(key), "collection_id": fact.collection_id, "changed_at": envelope.time}
            if row["deleted"] or (collection is not None and collection["deleted"]):
                return {**row, **_GONE}
            return _with(row, fact, envelope)
    return row


def _new(key: Key) -> Row:
    return dict.fromkeys(TABLE.columns) | {
        "tenant_id": key[0],
        "id": key[1],
        "status": "queued",
        "embedded": 0,
        "deleted": False,
    }


def _with(row: Row, fact: _Ingestion, envelope: AnyEnvelope) -> Row:
    ingestion_id = envelope.id if isinstance(fact, IngestDocument) else fact.ingestion_id
    newest = row["ingestion_id"]
    if isinstance(fact, IngestDocument):
        added = envelope.time if row["added_at"] is None else min(row["added_at"], envelope.time)
        row = {**row, "added_at": added}
        if row["content"] is None or newest is None or ingestion_id >= newest:
            row = {**row, "content": fact.content.model_dump(), "bytes": fact.bytes}
    if newest is not None and ingestion_id < newest:
        return row
    if ingestion_id != newest:
        row = {**row, **_BEGUN, "ingestion_id": ingestion_id}
    said = _said(fact)
    before, after = (_STAGES.index(row["status"]), row["embedded"]), (_STAGES.index(said["status"]), said["embedded"])
    if after < before:
        return row
    return {**row, **said, "changed_at": max(row["changed_at"], envelope.time)}


def _said(fact: _Ingestion) -> Row:
    match fact:
        case IngestDocument():
            return {"status": "queued", "embedded": 0}
        case IngestionProgressed():
            return {"status": fact.stage, "embedded": fact.embedded, "chunks": fact.chunks}
        case DocumentIngested():
            return {
                "status": "ready",
                "kind": fact.kind,
                "characters": fact.characters,
                "chunks": fact.chunks,
                "embedded": fact.chunks,
            }
        case IngestionFailed():
            return {"status": "failed", "embedded": 0, "chunks": None, "reason": fact.reason, "detail": fact.detail}


PROJECTION = Projection(
    table=TABLE,
    handles=frozenset(
        (IngestDocument, IngestionProgressed, DocumentIngested, IngestionFailed, DocumentDeleted, CollectionDeleted)
    ),
    affects=_affects,
    fold=_fold,
    beside=_beside,
    looks_at=(collections.TABLE.name,),
)
