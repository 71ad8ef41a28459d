"""Collections as a source of prompts: the chunks that have to do with the question."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from uuid import UUID

from pydantic import TypeAdapter

from backplane.ports import searches
from backplane.ports.database import Database, DatabaseUnavailable, Row
from backplane.ports.key_wrapping import CannotUnwrap, WrappingUnavailable
from backplane.ports.searches import SearchFailed
from backplane.ports.token_stream import Signals
from backplane.security.content import C, CannotRead, ContentErased, DataKeys, opened
from event_schemas.knowledge import CollectionContent, DocumentContent
from event_schemas.payload import Written
from event_schemas.sources import CollectionWish
from workers.sources.port import Material, SourceUnavailable

logger = logging.getLogger(__name__)

_SEARCH_S = 15.0
_MOST_QUESTION = 4000
_WRITTEN: TypeAdapter[Written] = TypeAdapter(Written)


class CollectionReader:
    """The reader of ``collection``. The ingest service searches; what it found is read here, with the eyes of the
    prompt's tenant."""

    def __init__(self, signals: Signals, database: Database, data_keys: DataKeys) -> None:
        self._signals = signals
        self._database = database
        self._data_keys = data_keys

    async def read(self, tenant_id: UUID, wish: CollectionWish, question: str) -> Sequence[Material]:
        """Its best chunks, the best first; none where nothing fits."""
        asked = question[:_MOST_QUESTION].strip()
        if not asked:
            raise SourceUnavailable(f"the collection {wish.name!r} is searched by the question, which has no text")
        try:
            best = await searches.search(
                self._signals, tenant_id, wish.collection_id, asked, most=wish.most, within_s=_SEARCH_S
            )
            rows = await self._chunks(tenant_id, [each.chunk_id for each in best])
        except SearchFailed as failed:
            raise SourceUnavailable(f"the collection {wish.name!r} cannot be searched: {failed}") from None
        except DatabaseUnavailable:
            raise SourceUnavailable(f"the collection {wish.name!r} cannot be read now") from None
        # What was deleted meanwhile is not there any more.
        found = [rows[each.chunk_id] for each in best if each.chunk_id in rows]
        return [
            Material(
                "collection",
                row["text"],
                title=await self._title(tenant_id, row),
                collection_id=wish.collection_id,
                document_id=row["document_id"],
                chunk_id=row["chunk_id"],
            )
            for row in found
        ]

    async def describe(self, tenant_id: UUID, wish: CollectionWish) -> tuple[str, str]:
        """Its name and its description."""
        try:
            async with self._database.tenant(tenant_id) as session:
                row = await session.one(
                    "SELECT c.name, c.content, k.wrapped FROM read_models.collections c"
                    " LEFT JOIN control.data_keys k ON k.tenant_id = c.tenant_id AND k.conversation_id = c.id"
                    " WHERE c.tenant_id = :tenant_id AND c.id = :id AND NOT c.deleted",
                    tenant_id=tenant_id,
                    id=wish.collection_id,
                )
        except DatabaseUnavailable:
            raise SourceUnavailable(f"the collection {wish.name!r} cannot be read now") from None
        if row is None:
            raise SourceUnavailable(f"there is no collection {wish.name!r} any more")
        content = await self._opened(tenant_id, wish.collection_id, row, CollectionContent)
        return row["name"], "" if content is None else content.description

    async def _chunks(self, tenant_id: UUID, chunk_ids: Sequence[UUID]) -> dict[UUID, Row]:
        if not chunk_ids:
            return {}
        async with self._database.tenant(tenant_id) as session:
            rows = await session.all(
                "SELECT h.chunk_id, h.document_id, h.headings, h.text, d.content, k.wrapped"
                " FROM knowledge.chunks h JOIN control.documents d ON d.document_id = h.document_id"
                " LEFT JOIN control.data_keys k ON k.tenant_id = h.tenant_id AND k.conversation_id = h.document_id"
                " WHERE h.tenant_id = :tenant_id AND h.chunk_id = ANY(CAST(:ids AS uuid[]))",
                tenant_id=tenant_id,
                ids=list(chunk_ids),
            )
        return {row["chunk_id"]: row for row in rows}

    async def _title(self, tenant_id: UUID, row: Row) -> str | None:
        """The document's name, and the headings that the chunk stands under."""
        content = await self._opened(tenant_id, row["document_id"], row, DocumentContent)
        name = None if content is None else content.name
        return " › ".join(part for part in (name, row["headings"]) if part) or None

    async def _opened(self, tenant_id: UUID, of: UUID, row: Row, kind: type[C]) -> C | None:
        if row["content"] is None or row["wrapped"] is None:
            return None
        try:
            key = await self._data_keys.unwrap(row["wrapped"], tenant_id, of)
            return opened(_WRITTEN.validate_python(row["content"]), key, kind)
        except (CannotUnwrap, WrappingUnavailable, CannotRead, ContentErased) as error:
            # A source without its name is still one.
            logger.warning("a name is not shown", extra={"action": "name_unreadable", "cause": str(error)})
            return None
