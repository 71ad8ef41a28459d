"""Collections on a real Postgres, with an embedder of the tests' own where none is needed that knows English."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.ports.identifiers import new_id
from backplane.settings.knowledge import EmbedderSettings
from command_api.collections import Collections
from event_schemas.codec import AnyEnvelope, decode
from tests.conftest import TestDatabase
from tests.data_keys import DATA_KEYS
from tests.embedding_server import bag_of_words
from tests.integration.publications import Publications
from workers.embedding.port import Embedder, Purpose, Vector
from workers.embedding.reranking import Reranker
from workers.knowledge.chunk_store import ChunkStore
from workers.knowledge.embedders import Embedders
from workers.knowledge.ingestion import Ingestion, IngestionPorts
from workers.knowledge.retrieval import Retrieval

SETTINGS = {
    "words": EmbedderSettings(kind="openai", model="words", chunk_tokens=16, overlap_tokens=0),
    "other": EmbedderSettings(kind="openai", model="other", chunk_tokens=16, overlap_tokens=0),
}


@dataclass
class Words:
    """Texts with the same words are close."""

    identity: str = "words"
    window: int | None = None
    embedded: list[str] = field(default_factory=list)
    before_each: Callable[[], None] = lambda: None
    waits: asyncio.Event | None = None
    """What each embedding waits for."""

    async def start(self) -> None: ...

    def lengths(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    async def embed(self, texts: Sequence[str], purpose: Purpose) -> list[Vector]:
        self.before_each()
        if self.waits is not None:
            await self.waits.wait()
        self.embedded += texts
        return [bag_of_words(text) for text in texts]

    async def close(self) -> None: ...


class Given(Embedders):
    """Embedders that are at hand already."""

    def __init__(self, ready: Mapping[str, Embedder], reranker: Reranker | None = None) -> None:
        super().__init__(SETTINGS, None)
        self._ready.update(ready)
        self._ranks = reranker

    async def reranker(self) -> Reranker | None:
        return self._ranks


@dataclass
class KnowledgeWorld:
    commands: PostgresDatabase
    work: PostgresDatabase
    owner: asyncpg.Connection
    collections: Collections
    words: Words = field(default_factory=Words)
    said: Publications = field(default_factory=Publications)
    reranker: Reranker | None = None

    @property
    def embedders(self) -> Embedders:
        return Given({"words": self.words, "other": Words("other")}, self.reranker)

    @property
    def retrieval(self) -> Retrieval:
        return Retrieval(self.work, self.embedders)

    async def collection(self, tenant_id: UUID, name: str = "handbook", embedder: str = "words") -> UUID:
        made = await self.collections.create(
            tenant_id, name, description="ours", embedder=embedder, language="english", actor="test"
        )
        return made.id

    async def command(self, document_id: UUID) -> AnyEnvelope:
        """The newest that asks for its ingestion."""
        rows = await self.owner.fetch("SELECT envelope FROM control.outbox ORDER BY id DESC")
        return next(
            one for one in (decode(row["envelope"]) for row in rows) if one.subject == f"document:{document_id}"
        )

    def ingestion(self, command: AnyEnvelope) -> Ingestion:
        ports = IngestionPorts(ChunkStore(self.work), self.embedders, DATA_KEYS, self.said, 60)
        return Ingestion(ports, command, "test")

    async def add(self, tenant_id: UUID, collection_id: UUID, text: str | bytes) -> UUID:
        """Add and ingest a document."""
        raw = text.encode() if isinstance(text, str) else text
        document_id, _ = await self.collections.add_document(tenant_id, collection_id, "a document", raw, actor="test")
        await self.ingestion(await self.command(document_id)).run()
        return document_id

    async def texts(self, document_id: UUID) -> list[str]:
        rows = await self.owner.fetch(
            "SELECT text FROM knowledge.chunks WHERE document_id = $1 ORDER BY ingestion_id, ordinal", document_id
        )
        return [row["text"] for row in rows]

    async def found(self, tenant_id: UUID, collection_id: UUID, question: str, most: int = 3) -> list[str]:
        best = await self.retrieval.search(tenant_id, collection_id, question, most)
        rows = await self.owner.fetch(
            "SELECT chunk_id, text FROM knowledge.chunks WHERE chunk_id = ANY($1)", [one.chunk_id for one in best]
        )
        texts = {row["chunk_id"]: row["text"] for row in rows}
        return [texts[one.chunk_id] for one in best]


@asynccontextmanager
async def knowledge_world(database: TestDatabase) -> AsyncIterator[KnowledgeWorld]:
    commands = PostgresDatabase(database.role_url("command_api"), pool_size=4)
    work = PostgresDatabase(database.role_url("worker"), pool_size=4)
    owner = await asyncpg.connect(database.owner_url)
    try:
        yield KnowledgeWorld(commands, work, owner, Collections(commands, DATA_KEYS, SETTINGS))
    finally:
        await owner.close()
        await work.close()
        await commands.close()


def sentences(number: int) -> str:
    """So many chunks, each of words that no other has."""
    words = ("north", "ship", "grain", "stone", "bread", "glass")
    return "\n\n".join(" ".join(f"{word}{n}" for word in words * 2) + "." for n in range(number))


def tenant() -> UUID:
    return new_id()
