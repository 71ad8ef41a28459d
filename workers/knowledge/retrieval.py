"""What a collection has that answers a question: by meaning and by words, fused, and read once more where there is a
reranker."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from backplane.ports.database import Database, Row, TenantSession
from backplane.ports.searches import Found, SearchFailed
from workers.embedding.port import EmbeddingError, Vector
from workers.embedding.reranking import Reranker
from workers.knowledge.chunk_store import vector_text
from workers.knowledge.embedders import Embedders
from workers.knowledge.fusion import fused

CANDIDATES = 50
"""Of each ranking."""

_SHARE_OF_WORDS = 0.5

RERANKED = 20
"""Of what was fused; reading each takes a while."""

_INDEXED = frozenset((384, 512, 768, 1024, 1536))
_INDEXED_HALF = frozenset((3072,))


@dataclass(frozen=True, slots=True)
class Rankings:
    """Chunks of one collection, the best first, by each way of looking."""

    by_meaning: list[UUID]
    by_words: list[UUID]


class Retrieval:
    def __init__(self, database: Database, embedders: Embedders) -> None:
        self._database = database
        self._embedders = embedders

    async def search(self, tenant_id: UUID, collection_id: UUID, question: str, most: int) -> list[Found]:
        """Raises SearchFailed, DatabaseUnavailable."""
        try:
            reranker = await self._embedders.reranker()
            rankings = await self.rankings(tenant_id, collection_id, question)
            best = fused(rankings.by_meaning, rankings.by_words)
            if reranker is not None:
                best = await self._reranked(reranker, tenant_id, question, best[: max(most, RERANKED)])
        except EmbeddingError as error:
            raise SearchFailed(error.reason, str(error)) from error
        return [Found(chunk_id, score) for chunk_id, score in best[:most]]

    async def rankings(self, tenant_id: UUID, collection_id: UUID, question: str) -> Rankings:
        """Raises SearchFailed, EmbeddingError, DatabaseUnavailable."""
        collection = await self._collection(tenant_id, collection_id)
        embedder = await self._embedders.get(collection["embedder"])
        (asked,) = await embedder.embed([question], "question")
        async with self._database.tenant(tenant_id) as session:
            # Filters come after the index here, so it has to go on until there are enough.
            await session.execute("SELECT set_config('hnsw.iterative_scan', 'strict_order', true)")
            by_meaning = await _by_meaning(session, collection_id, embedder.identity, asked)
            by_words = await _by_words(session, collection_id, collection["language"], question)
            if not by_meaning and await _has_others(session, collection_id, embedder.identity):
                raise SearchFailed(
                    "other_embedder",
                    f"the collection was embedded by another model than {embedder.identity}; run `parley collection"
                    f" reindex {collection_id}`",
                )
        return Rankings(by_meaning, by_words)

    async def _collection(self, tenant_id: UUID, collection_id: UUID) -> Row:
        async with self._database.tenant(tenant_id) as session:
            row = await session.one(
                "SELECT embedder, language, to_regclass('knowledge.chunks') IS NOT NULL AS vectors"
                " FROM control.collections WHERE collection_id = :id AND tenant_id = :tenant_id",
                id=collection_id,
                tenant_id=tenant_id,
            )
        if row is None:
            raise SearchFailed("no_such_collection", f"there is no collection {collection_id}")
        if not row["vectors"]:
            raise SearchFailed("no_vectors", "Postgres has no pgvector; install it, then run `parley migrate`")
        return row

    async def _reranked(
        self, reranker: Reranker, tenant_id: UUID, question: str, best: list[tuple[UUID, float]]
    ) -> list[tuple[UUID, float]]:
        async with self._database.tenant(tenant_id) as session:
            rows = await session.all(
                "SELECT chunk_id, headings, text FROM knowledge.chunks"
                " WHERE chunk_id = ANY(CAST(:ids AS uuid[])) AND tenant_id = :tenant_id",
                ids=[chunk_id for chunk_id, _ in best],
                tenant_id=tenant_id,
            )
        texts = {row["chunk_id"]: f"{row['headings']}\n{row['text']}".strip() for row in rows}
        # What was deleted meanwhile is not there any more.
        there = [chunk_id for chunk_id, _ in best if chunk_id in texts]
        if not there:
            return []
        scores = await reranker.scores(question, [texts[chunk_id] for chunk_id in there])
        return sorted(zip(there, scores, strict=True), key=lambda each: -each[1])


_SHOWN = (
    "FROM knowledge.chunks c JOIN knowledge.ingestions i ON i.document_id = c.document_id AND i.shown = c.ingestion_id"
    " WHERE c.collection_id = :collection_id"
)


# A word as a query: quotes and backslashes in it are doubled. `chr(39)` is the quote, `chr(92)` the backslash.
_BY_WORDS = f"""
WITH asked AS MATERIALIZED (
  SELECT l.lexeme, CAST(chr(39) || replace(replace(l.lexeme, chr(92), repeat(chr(92), 2)), chr(39), repeat(chr(39), 2))
    || chr(39) AS tsquery) AS query
  FROM unnest(to_tsvector(CAST(CAST(:language AS text) AS regconfig), CAST(:question AS text))) l
), hits AS MATERIALIZED (
  SELECT c.chunk_id, a.lexeme, length(c.words) AS size
  {_SHOWN.replace(" WHERE", " CROSS JOIN asked a WHERE")} AND c.words @@ a.query
), weights AS MATERIALIZED (
  SELECT lexeme, ln(1 + (SELECT count(*) {_SHOWN}) / greatest(CAST(count(h.chunk_id) AS float8), 0.5)) AS weight
  FROM asked LEFT JOIN hits h USING (lexeme) GROUP BY lexeme
)
SELECT h.chunk_id FROM hits h JOIN weights w USING (lexeme)
GROUP BY h.chunk_id
HAVING sum(w.weight) >= CAST(:share AS float8) * (SELECT sum(weight) FROM weights)
ORDER BY sum(w.weight) DESC, min(h.size), h.chunk_id LIMIT {CANDIDATES}
"""  # noqa: S608


async def _by_meaning(session: TenantSession, collection_id: UUID, embedder: str, asked: Vector) -> list[UUID]:
    size = len(asked)
    kind = f"vector({size})" if size in _INDEXED else f"halfvec({size})" if size in _INDEXED_HALF else "vector"
    # The size stands in the text, as in the index that is to be used; it is a number.
    rows = await session.all(
        f"SELECT c.chunk_id {_SHOWN} AND c.embedder = :embedder AND c.dimensions = {size}"
        f" ORDER BY c.embedding::{kind} <=> CAST(CAST(:asked AS text) AS {kind}) LIMIT {CANDIDATES}",
        collection_id=collection_id,
        embedder=embedder,
        asked=vector_text(asked),
    )
    return [row["chunk_id"] for row in rows]


async def _by_words(session: TenantSession, collection_id: UUID, language: str, question: str) -> list[UUID]:
    """Chunks that have half of the question's words or more, each word weighed by how rare it is in the collection
    (inverse document frequency; Sparck Jones 1972, https://doi.org/10.1108/eb026526). With fewer, a ranking is mostly
    chance, and fused with the other one it makes that worse."""
    rows = await session.all(
        _BY_WORDS, collection_id=collection_id, language=language, question=question, share=_SHARE_OF_WORDS
    )
    return [row["chunk_id"] for row in rows]


async def _has_others(session: TenantSession, collection_id: UUID, embedder: str) -> bool:
    row = await session.one(
        f"SELECT 1 {_SHOWN} AND c.embedder <> :embedder LIMIT 1",
        collection_id=collection_id,
        embedder=embedder,
    )
    return row is not None
