"""A document's chunks in Postgres, and how far its ingestion has come. Every step can be done twice.

Whoever deletes the document deletes all of it by cascade; what is stored for one that is gone is stored nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from backplane.ports.database import Database, Row, TenantSession
from backplane.ports.identifiers import new_id
from workers.embedding.port import Vector


class NoVectors(Exception):
    """Postgres has no pgvector, so that there is no table of chunks."""


@dataclass(frozen=True, slots=True)
class Place:
    """Whose chunks these are. ``ingestion_id`` is younger than that of any ingestion before it."""

    tenant_id: UUID
    collection_id: UUID
    document_id: UUID
    ingestion_id: UUID


@dataclass(frozen=True, slots=True)
class Kept:
    """What the write side has of a document. ``wrapped`` is its data key."""

    sealed: bytes
    wrapped: bytes
    embedder: str
    language: str


@dataclass(frozen=True, slots=True)
class NewChunk:
    ordinal: int
    headings: str
    text: str
    vector: Vector


class ChunkStore:
    """Raises DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def kept(self, place: Place) -> Kept | None:
        """None where the document is gone."""
        async with self._database.tenant(place.tenant_id) as session:
            row = await session.one(
                "SELECT d.sealed, k.wrapped, c.embedder, c.language FROM control.documents d"
                " JOIN control.collections c ON c.collection_id = d.collection_id"
                " JOIN control.data_keys k ON k.tenant_id = d.tenant_id AND k.conversation_id = d.document_id"
                " WHERE d.document_id = :document_id AND d.tenant_id = :tenant_id",
                document_id=place.document_id,
                tenant_id=place.tenant_id,
            )
        return None if row is None else Kept(**row)

    async def begin(self, place: Place) -> Row | None:
        """Count one more attempt. Returns its ``attempts`` since something was last stored, and ``terminal`` where it
        has ended; None where the document is gone, or a younger ingestion has begun. Raises NoVectors."""
        async with self._database.tenant(place.tenant_id) as session:
            await _check(session)
            return await session.one(
                """INSERT INTO knowledge.ingestions AS i (document_id, tenant_id, newest, attempts)
                   SELECT document_id, tenant_id, CAST(:ingestion_id AS uuid), 1 FROM control.documents
                   WHERE document_id = :document_id AND tenant_id = :tenant_id
                   ON CONFLICT (document_id) DO UPDATE SET
                     newest = excluded.newest,
                     attempts = CASE WHEN i.newest = excluded.newest THEN i.attempts + 1 ELSE 1 END,
                     terminal = CASE WHEN i.newest = excluded.newest THEN i.terminal END
                   WHERE i.newest <= excluded.newest
                   RETURNING attempts, terminal""",
                document_id=place.document_id,
                tenant_id=place.tenant_id,
                ingestion_id=place.ingestion_id,
            )

    async def forgive(self, place: Place) -> None:
        """The attempt that was begun last does not count."""
        async with self._database.tenant(place.tenant_id) as session:
            await session.execute(
                "UPDATE knowledge.ingestions SET attempts = greatest(attempts - 1, 0)"
                " WHERE document_id = :document_id AND newest = :ingestion_id",
                **_ids(place),
            )

    async def stored(self, place: Place, embedder: str) -> int:
        """How many chunks of this ingestion, by ``embedder``, stand from the first on without a gap; others are taken
        away."""
        async with self._database.tenant(place.tenant_id) as session:
            await session.execute(
                "DELETE FROM knowledge.chunks WHERE document_id = :document_id AND ingestion_id = :ingestion_id"
                " AND embedder <> :embedder",
                embedder=embedder,
                **_ids(place),
            )
            rows = await session.all(
                "SELECT ordinal FROM knowledge.chunks WHERE document_id = :document_id"
                " AND ingestion_id = :ingestion_id ORDER BY ordinal",
                **_ids(place),
            )
        return next((at for at, row in enumerate(rows) if row["ordinal"] != at), len(rows))

    async def add(self, place: Place, language: str, embedder: str, chunks: Sequence[NewChunk]) -> bool:
        """Store some more; False where the document is gone, or a younger ingestion has begun."""
        async with self._database.tenant(place.tenant_id) as session:
            mine = await session.one(
                "UPDATE knowledge.ingestions SET attempts = 0 WHERE document_id = :document_id"
                " AND newest = :ingestion_id RETURNING document_id",
                **_ids(place),
            )
            if mine is None:
                return False
            await session.execute_many(
                """INSERT INTO knowledge.chunks (chunk_id, tenant_id, collection_id, document_id, ingestion_id, ordinal,
                     headings, text, words, embedder, dimensions, embedding)
                   VALUES (:chunk_id, :tenant_id, :collection_id, :document_id, :ingestion_id, :ordinal, :headings,
                     :text, to_tsvector(CAST(CAST(:language AS text) AS regconfig), CAST(:searched AS text)), :embedder,
                     :dimensions, CAST(CAST(:vector AS text) AS vector))
                   ON CONFLICT (document_id, ingestion_id, ordinal) DO NOTHING""",
                [
                    {
                        "chunk_id": new_id(),
                        "tenant_id": place.tenant_id,
                        "collection_id": place.collection_id,
                        **_ids(place),
                        "ordinal": chunk.ordinal,
                        "headings": chunk.headings,
                        "text": chunk.text,
                        "searched": f"{chunk.headings}\n{chunk.text}",
                        "language": language,
                        "embedder": embedder,
                        "dimensions": len(chunk.vector),
                        "vector": vector_text(chunk.vector),
                    }
                    for chunk in chunks
                ],
            )
        return True

    async def end(self, place: Place, terminal: bytes, *, shown: bool) -> bool:
        """``shown``: from now on its chunks are found, and those before are gone; else nothing of it stays. False
        where the document is gone, it has ended already, or a younger ingestion has begun."""
        async with self._database.tenant(place.tenant_id) as session:
            ended = await session.one(
                "UPDATE knowledge.ingestions SET terminal = :terminal, shown = CASE WHEN :is_shown THEN newest ELSE"
                " shown END WHERE document_id = :document_id AND newest = :ingestion_id AND terminal IS NULL"
                " RETURNING document_id",
                terminal=terminal,
                is_shown=shown,
                **_ids(place),
            )
            if ended is None:
                return False
            await session.execute(
                "DELETE FROM knowledge.chunks WHERE document_id = :document_id"
                " AND (ingestion_id = :ingestion_id) <> CAST(:is_shown AS boolean)",
                is_shown=shown,
                **_ids(place),
            )
        return True


def vector_text(vector: Vector) -> str:
    """As pgvector reads it."""
    return "[" + ",".join(f"{value:.7g}" for value in vector) + "]"


def _ids(place: Place) -> Row:
    return {"document_id": place.document_id, "ingestion_id": place.ingestion_id}


async def _check(session: TenantSession) -> None:
    row = await session.one("SELECT to_regclass('knowledge.chunks') IS NOT NULL AS there")
    if row is None or not row["there"]:
        raise NoVectors("Postgres has no pgvector; install it, then run `parley migrate`")
