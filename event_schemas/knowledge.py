"""Collections of documents: what people add, and how far it has come on its way to being found.

What a document says is in no command and no event; its name, and what a collection is for, stand in them sealed, under
a data key of the document or the collection.
"""

from __future__ import annotations

from typing import ClassVar, Literal
from uuid import UUID

from pydantic import Field

from event_schemas.payload import Content, Payload, Written

Stage = Literal["reading", "embedding"]


class CollectionContent(Content):
    description: str = Field(description="what is in it, for people and for models that choose")


class DocumentContent(Content):
    name: str = Field(description="as who uploaded it calls it")


class _AboutCollection(Payload):
    collection_id: UUID

    def subject(self) -> str:
        return f"collection:{self.collection_id}"


class CreateCollection(_AboutCollection):
    wire_name: ClassVar[str] = "collection.create.v1"

    name: str
    embedder: str = Field(description="its name in the settings")
    language: str = Field(description="Postgres's name of the language whose words are searched")
    content: Written | None = Field(default=None, description="a CollectionContent, where it has a description")


class CollectionCreated(_AboutCollection):
    """Documents can be added to it."""

    wire_name: ClassVar[str] = "collection.created.v1"

    name: str
    embedder: str = Field(description="its name in the settings")
    language: str = Field(description="Postgres's name of the language whose words are searched")
    content: Written | None = Field(default=None, description="a CollectionContent, where it has a description")


class ChangeCollection(_AboutCollection):
    wire_name: ClassVar[str] = "collection.change.v1"

    name: str | None = Field(default=None, description="none: as it was")
    content: Written | None = Field(default=None, description="a CollectionContent; none: as it was")


class CollectionChanged(_AboutCollection):
    """It is called or described otherwise."""

    wire_name: ClassVar[str] = "collection.changed.v1"

    name: str | None = Field(default=None, description="none: as it was")
    content: Written | None = Field(default=None, description="a CollectionContent; none: as it was")


class DeleteCollection(_AboutCollection):
    wire_name: ClassVar[str] = "collection.delete.v1"


class CollectionDeleted(_AboutCollection):
    """It is gone with all of its documents, and what they said is kept nowhere."""

    wire_name: ClassVar[str] = "collection.deleted.v1"


class _AboutDocument(Payload):
    document_id: UUID
    collection_id: UUID

    def subject(self) -> str:
        return f"document:{self.document_id}"


class IngestDocument(_AboutDocument):
    """Command: make this document's chunks, or make them anew. It is also the fact that it was added.

    The file is kept, sealed, by the write side. The command's envelope names the ingestion.
    """

    wire_name: ClassVar[str] = "document.ingest.v1"

    bytes: int = Field(ge=0, description="of the file")
    content: Written = Field(description="a DocumentContent")


class _OfIngestion(_AboutDocument):
    ingestion_id: UUID = Field(description="the envelope of its IngestDocument")


class IngestionProgressed(_OfIngestion):
    """How far a document has come; said about once a second."""

    wire_name: ClassVar[str] = "document.progressed.v1"

    stage: Stage
    embedded: int = Field(default=0, ge=0, description="chunks that are done")
    chunks: int | None = Field(default=None, ge=0, description="of so many; none: not known yet")


class DocumentIngested(_OfIngestion):
    """It can be found, by all of its chunks, and what was made of it before is gone."""

    wire_name: ClassVar[str] = "document.ingested.v1"

    kind: str = Field(description="what its bytes are: `text`, `markdown`, `html`, `pdf`, `docx`")
    characters: int = Field(ge=0, description="of its text")
    chunks: int = Field(ge=0)


class IngestionFailed(_OfIngestion):
    """It cannot be made findable; what was made of it before stays."""

    wire_name: ClassVar[str] = "document.failed.v1"

    reason: str = Field(description="stable, such as `encrypted` or `no_text`")
    detail: str = Field(description="for people; quotes nothing of the document")


class DeleteDocument(_AboutDocument):
    wire_name: ClassVar[str] = "document.delete.v1"


class DocumentDeleted(_AboutDocument):
    """It is gone, with its file and its chunks."""

    wire_name: ClassVar[str] = "document.deleted.v1"
