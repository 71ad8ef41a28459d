"""The endpoints that list and search collections."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from backplane.ports.searches import SearchFailed
from backplane.security.principal import Principal
from backplane.web.authentication import requires
from backplane.web.problems import Problem, responses, unavailable
from query_api import collection_readers
from query_api.answers import answers
from query_api.service import QueryPorts

router = APIRouter(prefix="/v1/collections", tags=["collections"])

Reader = Annotated[Principal, Depends(requires("collections.read"))]
CollectionId = Annotated[UUID, Path(description="the collection, as the 201 named it")]
DocumentId = Annotated[UUID, Path(description="the document, as the 202 named it")]

_COLLECTION = "01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d20"
_DOCUMENT = "01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d21"
_CHUNK = "01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d22"
_TIME = "2026-03-01T12:00:00.123456Z"


class _View(BaseModel):
    model_config = ConfigDict(extra="ignore")


class CollectionView(_View):
    id: UUID = Field(description="the collection", examples=[_COLLECTION])
    name: str = Field(description="unique in the tenant", examples=["handbook"])
    description: str | None = Field(description="what is in it", examples=["How we do things"])
    embedder: str = Field(description="what makes vectors of its documents", examples=["minilm"])
    language: str = Field(description="whose word forms the full-text search knows", examples=["english"])
    documents: int = Field(description="how many there are", examples=[12])
    created_at: datetime = Field(description="when it was made", examples=[_TIME])


class CollectionList(BaseModel):
    collections: list[CollectionView] = Field(description="all of the tenant's, by name")


class DocumentView(_View):
    id: UUID = Field(description="the document", examples=[_DOCUMENT])
    collection_id: UUID = Field(description="its collection", examples=[_COLLECTION])
    name: str | None = Field(description="as who uploaded it calls it", examples=["Holidays.pdf"])
    bytes: int = Field(description="of its file", examples=[48_211])
    status: Literal["queued", "reading", "embedding", "ready", "failed"] = Field(
        description="how far it has come; it is found once it is `ready`", examples=["embedding"]
    )
    embedded: int = Field(description="chunks that are done", examples=[64])
    chunks: int | None = Field(description="of so many; null: not known yet", examples=[180])
    kind: Literal["text", "markdown", "html", "pdf", "docx"] | None = Field(
        description="what its bytes are; null: not known yet", examples=["pdf"]
    )
    characters: int | None = Field(description="of its text; null: not known yet", examples=[91_300])
    reason: str | None = Field(description="why it failed; stable", examples=[None])
    detail: str | None = Field(description="the same for people", examples=[None])
    added_at: datetime = Field(description="when it was uploaded", examples=[_TIME])
    changed_at: datetime = Field(description="when it came this far", examples=[_TIME])


class DocumentList(BaseModel):
    documents: list[DocumentView] = Field(description="the newest first")
    next_cursor: UUID | None = Field(description="where the next page begins; null: this is the last", examples=[None])


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain NUL characters")
    return text


class SearchBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    query: Annotated[str, AfterValidator(_storable)] = Field(
        min_length=1, max_length=4000, description="a question, or words", examples=["How many days off do I have?"]
    )
    most: int = Field(default=6, ge=1, le=50, description="chunks at most", examples=[6])


class ChunkView(_View):
    id: UUID = Field(description="the chunk, until its collection is indexed anew", examples=[_CHUNK])
    document_id: UUID = Field(description="what it is a part of", examples=[_DOCUMENT])
    document_name: str | None = Field(
        validation_alias="name", description="as who uploaded it calls it", examples=["Holidays.pdf"]
    )
    ordinal: int = Field(description="its place in the document, from 0", examples=[3])
    headings: str = Field(description="what it stands under", examples=["Holidays › Days a year"])
    text: str = Field(description="what it says", examples=["There are 30 days a year."])
    score: float = Field(description="more is better; of two searches they cannot be compared", examples=[0.0325])


class SearchResult(BaseModel):
    chunks: list[ChunkView] = Field(description="the best first")


def _ports(request: Request) -> QueryPorts:
    ports: QueryPorts = request.app.state.query
    return ports


@router.get("", response_model=CollectionList, summary="Collections", responses=responses(401, 403, 422, 503))
async def list_collections(request: Request, principal: Reader) -> dict[str, Any]:
    """All of the tenant, each with how many documents it has."""
    return {"collections": await collection_readers.collections(_ports(request), principal)}


@router.get(
    "/{collection_id}",
    response_model=CollectionView,
    summary="One collection",
    responses=responses(401, 403, 404, 422, 503),
)
async def get_collection(request: Request, principal: Reader, collection_id: CollectionId) -> dict[str, Any]:
    """What it is called, which embedder and language it has, and how many documents."""
    with answers():
        return await collection_readers.collection(_ports(request), principal, collection_id)


@router.get(
    "/{collection_id}/documents",
    response_model=DocumentList,
    summary="A collection's documents",
    responses=responses(401, 403, 404, 422, 503),
)
async def list_documents(
    request: Request,
    principal: Reader,
    collection_id: CollectionId,
    cursor: Annotated[
        UUID | None, Query(description="where the page begins: `next_cursor` of the page before", examples=[_DOCUMENT])
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="documents of a page", examples=[50])] = 50,
) -> dict[str, Any]:
    """The newest first, a page at a time."""
    with answers():
        page = await collection_readers.documents(_ports(request), principal, collection_id, before=cursor, limit=limit)
    return {"documents": page.documents, "next_cursor": page.next}


@router.get(
    "/{collection_id}/documents/{document_id}",
    response_model=DocumentView,
    summary="One document, and how far it has come",
    responses=responses(401, 403, 404, 422, 503),
)
async def get_document(
    request: Request, principal: Reader, collection_id: CollectionId, document_id: DocumentId
) -> dict[str, Any]:
    """It is found by searches once its status is `ready`; one that failed says why."""
    with answers():
        return await collection_readers.document(_ports(request), principal, collection_id, document_id)


@router.post(
    "/{collection_id}/search",
    response_model=SearchResult,
    summary="Search a collection",
    responses=responses(400, 401, 403, 404, 409, 413, 415, 422, 503),
)
async def search_collection(
    request: Request, principal: Reader, collection_id: CollectionId, body: SearchBody
) -> dict[str, Any]:
    """By meaning and by words, fused; read once more by a reranker where the installation has one."""
    try:
        with answers():
            found = await collection_readers.search(_ports(request), principal, collection_id, body.query, body.most)
    except SearchFailed as failed:
        if failed.reason == "other_embedder":
            raise Problem(409, "other-embedder", "The collection has to be indexed anew", str(failed)) from None
        raise unavailable("search", f"The search failed: {failed}.") from None
    return {"chunks": found}
