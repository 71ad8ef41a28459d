"""Collections of documents: making, changing and deleting them and what is in them.

Each change is decided in one transaction with its outbox row. A document's file is kept sealed, under a data key of its
own; who deletes the document deletes that key, and by cascade its chunks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args
from uuid import UUID

from backplane.ports.database import Database, Row, TenantSession
from backplane.ports.identifiers import new_id
from backplane.security.content import DataKeys
from backplane.settings.knowledge import EmbedderSettings
from command_api import outbox
from command_api.admission import Refused
from event_schemas.envelope import Envelope
from event_schemas.knowledge import (
    ChangeCollection,
    CollectionChanged,
    CollectionContent,
    CollectionCreated,
    CollectionDeleted,
    CreateCollection,
    DeleteCollection,
    DeleteDocument,
    DocumentContent,
    DocumentDeleted,
    IngestDocument,
)
from event_schemas.payload import Payload, Written

SOURCE = "/parley/command_api"

Language = Literal[
    "simple",
    "arabic",
    "danish",
    "dutch",
    "english",
    "finnish",
    "french",
    "german",
    "greek",
    "hindi",
    "hungarian",
    "indonesian",
    "italian",
    "norwegian",
    "portuguese",
    "romanian",
    "russian",
    "spanish",
    "swedish",
    "turkish",
]
"""Postgres's names of languages whose word forms it knows; ``simple`` takes words as they stand."""

LANGUAGES: tuple[str, ...] = get_args(Language)

MOST_COLLECTIONS = 200
"""Of one tenant."""

MOST_DOCUMENTS = 10_000
"""Of one collection."""


class NoSuchCollection(LookupError):
    """Not there, or somebody else's."""


class NoSuchDocument(LookupError):
    """Not there, or somebody else's."""


class NameTaken(Exception):
    """The tenant has a collection of this name; ``collection_id`` is its id."""

    def __init__(self, collection_id: UUID) -> None:
        super().__init__(f"there is a collection of this name already: {collection_id}")
        self.collection_id = collection_id


class NoVectors(Exception):
    """Postgres has no pgvector, so that nothing could be found."""


@dataclass(frozen=True, slots=True)
class Created:
    id: UUID
    name: str
    description: str | None
    embedder: str
    language: str
    event_id: UUID


class Added(NamedTuple):
    document_id: UUID
    command_id: UUID


class Collections:
    """Everything here raises DatabaseUnavailable, and what makes or opens keys raises WrappingUnavailable."""

    def __init__(self, database: Database, data_keys: DataKeys, embedders: Mapping[str, EmbedderSettings]) -> None:
        self._database = database
        self._data_keys = data_keys
        self._embedders = embedders

    async def create(
        self,
        owner: UUID,
        name: str,
        *,
        description: str | None,
        embedder: str | None,
        language: Language,
        actor: str,
    ) -> Created:
        """Raises Refused, NameTaken, NoVectors."""
        chosen = self._chosen(embedder)
        collection_id = new_id()
        key, wrapped = await self._data_keys.make(owner, collection_id)
        content = None if description is None else key.seal(CollectionContent(description=description))
        async with self._database.tenant(owner) as session:
            await _check_vectors(session)
            await _locked(session)
            await _check_name(session, name)
            found = await session.one("SELECT count(*) AS number FROM control.collections")
            if found is not None and found["number"] >= MOST_COLLECTIONS:
                raise Refused(
                    "too-many-collections", "body", f"There are {found['number']} collections, the limit. Delete one."
                )
            command = CreateCollection(
                collection_id=collection_id, name=name, embedder=chosen, language=language, content=content
            )
            await session.execute(
                "INSERT INTO control.collections (collection_id, tenant_id, name, embedder, language)"
                " VALUES (:id, :tenant_id, :name, :embedder, :language)",
                id=collection_id,
                tenant_id=owner,
                name=name,
                embedder=chosen,
                language=language,
            )
            await _keep_key(session, collection_id, wrapped)
            event_id = await _decided(session, command, CollectionCreated(**command.model_dump()), actor)
        return Created(collection_id, name, description, chosen, language, event_id)

    async def change(
        self, owner: UUID, collection_id: UUID, *, name: str | None, description: str | None, actor: str
    ) -> UUID:
        """None leaves it as it is. Returns the event's id. Raises NoSuchCollection, NameTaken."""
        async with self._database.tenant(owner) as session:
            await _locked(session)
            row = await session.one(
                "SELECT k.wrapped FROM control.collections c JOIN control.data_keys k"
                " ON k.tenant_id = c.tenant_id AND k.conversation_id = c.collection_id WHERE c.collection_id = :id",
                id=collection_id,
            )
            if row is None:
                raise NoSuchCollection(f"there is no collection {collection_id}")
            if name is not None:
                await _check_name(session, name, collection_id)
                await session.execute(
                    "UPDATE control.collections SET name = :name WHERE collection_id = :id", id=collection_id, name=name
                )
            content: Written | None = None
            if description is not None:
                key = await self._data_keys.unwrap(row["wrapped"], owner, collection_id)
                content = key.seal(CollectionContent(description=description))
            command = ChangeCollection(collection_id=collection_id, name=name, content=content)
            return await _decided(session, command, CollectionChanged(**command.model_dump()), actor)

    async def delete(self, owner: UUID, collection_id: UUID, *, actor: str) -> UUID:
        """Its documents, their files and chunks, and the keys of all of them. Returns the event's id. Raises
        NoSuchCollection."""
        async with self._database.tenant(owner) as session:
            await session.execute(
                "DELETE FROM control.data_keys WHERE conversation_id = :id OR conversation_id IN"
                " (SELECT document_id FROM control.documents WHERE collection_id = :id)",
                id=collection_id,
            )
            if not await session.execute("DELETE FROM control.collections WHERE collection_id = :id", id=collection_id):
                raise NoSuchCollection(f"there is no collection {collection_id}")
            command = DeleteCollection(collection_id=collection_id)
            return await _decided(session, command, CollectionDeleted(collection_id=collection_id), actor)

    async def add_document(self, owner: UUID, collection_id: UUID, name: str, raw: bytes, *, actor: str) -> Added:
        """Keep the file, and have its chunks made. Raises NoSuchCollection, Refused."""
        document_id = new_id()
        key, wrapped = await self._data_keys.make(owner, document_id)
        content = key.seal(DocumentContent(name=name))
        sealed = key.seal_bytes(raw)
        async with self._database.tenant(owner) as session:
            found = await session.one(
                "SELECT (SELECT count(*) FROM control.documents d WHERE d.collection_id = c.collection_id) AS number"
                " FROM control.collections c WHERE c.collection_id = :id",
                id=collection_id,
            )
            if found is None:
                raise NoSuchCollection(f"there is no collection {collection_id}")
            if found["number"] >= MOST_DOCUMENTS:
                raise Refused(
                    "too-many-documents", "body", f"The collection has {found['number']} documents, the limit."
                )
            await session.execute(
                "INSERT INTO control.documents (document_id, tenant_id, collection_id, content, bytes, sealed)"
                " VALUES (:id, :tenant_id, :collection_id, :content, :bytes, :sealed)",
                id=document_id,
                tenant_id=owner,
                collection_id=collection_id,
                content=content.model_dump(),
                bytes=len(raw),
                sealed=sealed,
            )
            await _keep_key(session, document_id, wrapped)
            command = IngestDocument(
                document_id=document_id, collection_id=collection_id, bytes=len(raw), content=content
            )
            asked = _asked(owner, command, actor)
            await outbox.add(session, asked)
        return Added(document_id, asked.id)

    async def delete_document(self, owner: UUID, collection_id: UUID, document_id: UUID, *, actor: str) -> UUID:
        """Its file, its chunks and its key are gone at once. Returns the event's id. Raises NoSuchDocument."""
        async with self._database.tenant(owner) as session:
            if not await session.execute(
                "DELETE FROM control.documents WHERE document_id = :id AND collection_id = :collection_id",
                id=document_id,
                collection_id=collection_id,
            ):
                raise NoSuchDocument(f"there is no document {document_id}")
            await session.execute("DELETE FROM control.data_keys WHERE conversation_id = :id", id=document_id)
            command = DeleteDocument(document_id=document_id, collection_id=collection_id)
            return await _decided(session, command, DocumentDeleted(**command.model_dump()), actor)

    async def reindex(self, owner: UUID, collection_id: UUID, *, actor: str) -> int:
        """Have the chunks of all of its documents made anew, from the kept files. Returns how many. Raises
        NoSuchCollection."""
        async with self._database.tenant(owner) as session:
            if (
                await session.one("SELECT 1 FROM control.collections WHERE collection_id = :id", id=collection_id)
                is None
            ):
                raise NoSuchCollection(f"there is no collection {collection_id}")
            rows = await session.all(
                "SELECT document_id, collection_id, bytes, content FROM control.documents WHERE collection_id = :id"
                " ORDER BY document_id",
                id=collection_id,
            )
            for row in rows:
                await outbox.add(session, _asked(owner, IngestDocument.model_validate(row), actor))
        return len(rows)

    def _chosen(self, embedder: str | None) -> str:
        if embedder is None:
            return next(iter(self._embedders))
        if embedder not in self._embedders:
            there = ", ".join(self._embedders)
            raise Refused(
                "unknown-embedder", "body.embedder", f"There is no embedder {embedder!r}. There are: {there}."
            )
        return embedder


def _asked(owner: UUID, command: Payload, actor: str) -> Envelope[Payload]:
    return Envelope.first(command, id=new_id(), source=SOURCE, tenant_id=owner, actor=actor)


async def _check_vectors(session: TenantSession) -> None:
    row = await session.one("SELECT to_regclass('knowledge.chunks') IS NOT NULL AS there")
    if row is None or not row["there"]:
        raise NoVectors


async def _check_name(session: TenantSession, name: str, but: UUID | None = None) -> None:
    taken: Row | None = await session.one(
        "SELECT collection_id AS id FROM control.collections WHERE name = :name", name=name
    )
    if taken is not None and taken["id"] != but:
        raise NameTaken(taken["id"])


async def _locked(session: TenantSession) -> None:
    # One at a time for each owner, until the end of the transaction.
    await session.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended(CAST(:lock AS text), 0))",
        lock=f"collections/{session.tenant_id}",
    )


async def _keep_key(session: TenantSession, of: UUID, wrapped: bytes) -> None:
    # Whatever the tenant's policy says of conversations, what is added to a collection is kept until it is deleted.
    await session.execute(
        "INSERT INTO control.data_keys (tenant_id, conversation_id, wrapped) VALUES (:tenant_id, :of, :wrapped)",
        tenant_id=session.tenant_id,
        of=of,
        wrapped=wrapped,
    )


async def _decided(session: TenantSession, command: Payload, event: Payload, actor: str) -> UUID:
    decided = _asked(session.tenant_id, command, actor).caused(event, id=new_id(), source=SOURCE)
    await outbox.add(session, decided)
    return decided.id
