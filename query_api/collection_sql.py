"""The SQL of collections, their documents and chunks.

Every question is asked in a session that sees one tenant, and names that tenant too.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from backplane.ports.database import Row, TenantSession

_COLLECTION = """
SELECT c.id, c.name, c.embedder, c.language, c.content, c.created_at, k.wrapped,
  (SELECT count(*) FROM read_models.documents d
   WHERE d.tenant_id = c.tenant_id AND d.collection_id = c.id AND NOT d.deleted) AS documents
FROM read_models.collections c
LEFT JOIN control.data_keys k ON k.tenant_id = c.tenant_id AND k.conversation_id = c.id
WHERE c.tenant_id = :tenant AND NOT c.deleted AND c.created_at IS NOT NULL
"""

_DOCUMENT = """
SELECT d.id, d.collection_id, d.content, d.bytes, d.added_at, d.status, d.kind, d.characters, d.chunks, d.embedded,
  d.reason, d.detail, d.changed_at, k.wrapped
FROM read_models.documents d
LEFT JOIN control.data_keys k ON k.tenant_id = d.tenant_id AND k.conversation_id = d.id
WHERE d.tenant_id = :tenant AND d.collection_id = :collection_id AND NOT d.deleted AND d.added_at IS NOT NULL
"""


async def collections(session: TenantSession) -> list[Row]:
    """By name."""
    return await session.all(f"{_COLLECTION} ORDER BY c.name", tenant=session.tenant_id)


async def collection(session: TenantSession, collection_id: UUID) -> Row | None:
    return await session.one(f"{_COLLECTION} AND c.id = :id", tenant=session.tenant_id, id=collection_id)


async def documents(session: TenantSession, collection_id: UUID, *, before: UUID | None, limit: int) -> list[Row]:
    """The newest first."""
    return await session.all(
        f"{_DOCUMENT} AND (CAST(:before AS uuid) IS NULL OR d.id < :before) ORDER BY d.id DESC LIMIT :limit",
        tenant=session.tenant_id,
        collection_id=collection_id,
        before=before,
        limit=limit,
    )


async def document(session: TenantSession, collection_id: UUID, document_id: UUID) -> Row | None:
    return await session.one(
        f"{_DOCUMENT} AND d.id = :id", tenant=session.tenant_id, collection_id=collection_id, id=document_id
    )


async def chunks(session: TenantSession, chunk_ids: Sequence[UUID]) -> list[Row]:
    """With what opens their documents' names. In no order."""
    return await session.all(
        "SELECT h.chunk_id AS id, h.document_id, h.ordinal, h.headings, h.text, d.content, k.wrapped"
        " FROM knowledge.chunks h"
        " LEFT JOIN read_models.documents d ON d.tenant_id = h.tenant_id AND d.id = h.document_id"
        " LEFT JOIN control.data_keys k ON k.tenant_id = h.tenant_id AND k.conversation_id = h.document_id"
        " WHERE h.tenant_id = :tenant AND h.chunk_id = ANY(CAST(:ids AS uuid[]))",
        tenant=session.tenant_id,
        ids=list(chunk_ids),
    )
