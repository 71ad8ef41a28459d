"""The endpoints by which collections and their documents are made, changed and deleted."""

from __future__ import annotations

import sys
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from backplane.security.principal import Principal
from backplane.web.authentication import requires
from backplane.web.problems import Problem, not_found, responses
from command_api.admission import Refused
from command_api.collections import Language, NameTaken, NoSuchCollection, NoSuchDocument, NoVectors
from command_api.message_body import Text
from command_api.ports import ports_of, settle

router = APIRouter(prefix="/v1/collections", tags=["collections"])

Manager = Annotated[Principal, Depends(requires("collections.manage"))]

CollectionId = Annotated[UUID, Path(description="the collection, as the 201 named it")]
DocumentId = Annotated[UUID, Path(description="the document, as the 202 named it")]

_COLLECTION = "01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d20"
_DOCUMENT = "01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d21"
_MOST_NAME = 300

_NAME: dict[str, Any] = {
    "min_length": 1,
    "max_length": 100,
    "description": "unique in the tenant",
    "examples": ["handbook"],
}
_DESCRIPTION: dict[str, Any] = {
    "max_length": 2000,
    "description": "what is in it, for people and for models that choose; it is encrypted",
    "examples": ["How we do things: holidays, travel, machines"],
}


class CollectionBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Text = Field(**_NAME)
    description: Text | None = Field(default=None, **_DESCRIPTION)
    embedder: Text | None = Field(
        default=None,
        max_length=100,
        description="what makes vectors of its documents, by its name in the settings; null: the first of them",
        examples=["minilm"],
    )
    language: Language = Field(
        default="english",
        description="whose word forms the full-text search knows; `simple` takes words as they stand",
        examples=["english"],
    )


class CollectionChange(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Text | None = Field(default=None, **_NAME)
    description: Text | None = Field(default=None, **_DESCRIPTION)


class CollectionMade(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID = Field(description="names it from now on", examples=[_COLLECTION])
    name: str = Field(description="unique in the tenant", examples=["handbook"])
    description: str | None = Field(description="what is in it", examples=["How we do things"])
    embedder: str = Field(description="what makes vectors of its documents", examples=["minilm"])
    language: str = Field(description="whose word forms the full-text search knows", examples=["english"])


class DocumentBody(BaseModel):
    """A document as JSON. Files go as `multipart/form-data`, in a part named `file`."""

    model_config = ConfigDict(extra="forbid")

    name: Text = Field(
        min_length=1, max_length=_MOST_NAME, description="what it is called; it is encrypted", examples=["Holidays"]
    )
    text: Text = Field(
        min_length=1, description="plain text, Markdown or HTML", examples=["# Holidays\n\nThere are 30 days a year."]
    )


class DocumentAccepted(BaseModel):
    id: UUID = Field(description="names it from now on", examples=[_DOCUMENT])
    collection_id: UUID = Field(description="its collection", examples=[_COLLECTION])
    status_url: str = Field(
        description="how far it has come", examples=[f"/v1/collections/{_COLLECTION}/documents/{_DOCUMENT}"]
    )


class Reindexing(BaseModel):
    collection_id: UUID = Field(description="the collection", examples=[_COLLECTION])
    documents: int = Field(description="so many are read again", examples=[12])


@router.post(
    "",
    status_code=201,
    response_model=CollectionMade,
    summary="Make a collection",
    responses=responses(400, 401, 403, 409, 413, 415, 422, 503),
)
async def create_collection(request: Request, principal: Manager, body: CollectionBody) -> CollectionMade:
    """Documents that are added to it can be searched, and prompts can name it as a source."""
    try:
        made = await ports_of(request).collections.create(
            principal.tenant_id,
            body.name,
            description=body.description,
            embedder=body.embedder,
            language=body.language,
            actor=principal.actor,
        )
    except Refused as refused:
        raise _refused(refused) from None
    except NameTaken as taken:
        raise _taken(taken) from None
    except NoVectors:
        raise Problem(
            503,
            "no-vectors",
            "Collections need pgvector",
            "This installation's Postgres has no extension `vector` of version 0.8 or newer, or its owner may not"
            " create it. An operator installs pgvector and runs `parley migrate`.",
            headers={"Retry-After": "60"},
        ) from None
    await settle(request, principal, made.event_id)
    return CollectionMade.model_validate(made)


@router.patch(
    "/{collection_id}",
    status_code=204,
    summary="Change a collection's name or description",
    responses=responses(400, 401, 403, 404, 409, 413, 415, 422, 503),
)
async def change_collection(
    request: Request, principal: Manager, collection_id: CollectionId, body: CollectionChange
) -> None:
    """What is null or left out stays as it is."""
    try:
        event_id = await ports_of(request).collections.change(
            principal.tenant_id, collection_id, name=body.name, description=body.description, actor=principal.actor
        )
    except NoSuchCollection:
        raise not_found("collection") from None
    except NameTaken as taken:
        raise _taken(taken) from None
    await settle(request, principal, event_id)


@router.delete(
    "/{collection_id}",
    status_code=204,
    summary="Delete a collection",
    responses=responses(401, 403, 404, 422, 503),
)
async def delete_collection(request: Request, principal: Manager, collection_id: CollectionId) -> None:
    """With all of its documents. What they said is gone at once."""
    try:
        event_id = await ports_of(request).collections.delete(principal.tenant_id, collection_id, actor=principal.actor)
    except NoSuchCollection:
        raise not_found("collection") from None
    await settle(request, principal, event_id)


@router.post(
    "/{collection_id}/documents",
    status_code=202,
    response_model=DocumentAccepted,
    summary="Add a document",
    responses=responses(400, 401, 403, 404, 413, 415, 422, 503),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["file"],
                        "properties": {
                            "file": {
                                "type": "string",
                                "format": "binary",
                                "description": "text, Markdown, HTML, PDF or DOCX; its bytes say which",
                                "examples": ["the bytes of Holidays.pdf"],
                            }
                        },
                    }
                },
                "application/json": {"schema": DocumentBody.model_json_schema()},
            },
        }
    },
)
async def add_document(request: Request, principal: Manager, collection_id: CollectionId) -> DocumentAccepted:
    """A file, or text as JSON. It is kept encrypted, read, cut into chunks and embedded in the background; `status_url`
    says how far that is."""
    name, raw = await _document(request)
    ports = ports_of(request)
    try:
        document_id, command_id = await ports.collections.add_document(
            principal.tenant_id, collection_id, name, raw, actor=principal.actor
        )
    except NoSuchCollection:
        raise not_found("collection") from None
    except Refused as refused:
        raise _refused(refused) from None
    await settle(request, principal, command_id)
    return DocumentAccepted(
        id=document_id,
        collection_id=collection_id,
        status_url=f"/v1/collections/{collection_id}/documents/{document_id}",
    )


@router.delete(
    "/{collection_id}/documents/{document_id}",
    status_code=204,
    summary="Delete a document",
    responses=responses(401, 403, 404, 422, 503),
)
async def delete_document(
    request: Request, principal: Manager, collection_id: CollectionId, document_id: DocumentId
) -> None:
    """Its file and its chunks are gone at once; nothing finds it any more."""
    try:
        event_id = await ports_of(request).collections.delete_document(
            principal.tenant_id, collection_id, document_id, actor=principal.actor
        )
    except NoSuchDocument:
        raise not_found("document") from None
    await settle(request, principal, event_id)


@router.post(
    "/{collection_id}/reindex",
    status_code=202,
    response_model=Reindexing,
    summary="Make a collection's chunks anew",
    responses=responses(401, 403, 404, 422, 503),
)
async def reindex_collection(request: Request, principal: Manager, collection_id: CollectionId) -> Reindexing:
    """From the kept files; until a document is done, its former chunks are found."""
    ports = ports_of(request)
    try:
        documents = await ports.collections.reindex(principal.tenant_id, collection_id, actor=principal.actor)
    except NoSuchCollection:
        raise not_found("collection") from None
    ports.relay.wake()
    return Reindexing(collection_id=collection_id, documents=documents)


async def _document(request: Request) -> tuple[str, bytes]:
    """Its name and its bytes."""
    sent_as = request.headers.get("content-type", "nothing in particular").partition(";")[0].strip().lower()
    if sent_as == "application/json":
        try:
            body = DocumentBody.model_validate_json(await request.body())
        except ValidationError as error:
            errors: list[Any] = [{**one, "loc": ("body", *one["loc"])} for one in error.errors(include_input=False)]
            raise RequestValidationError(errors) from None
        return body.name, body.text.encode()
    if sent_as != "multipart/form-data":
        raise Problem(
            415,
            "unsupported-media-type",
            "Unsupported media type",
            f"The body was sent as {sent_as}: send a file as `multipart/form-data`, or text as `application/json`.",
        )
    parser = MultiPartParser(request.headers, request.stream(), max_files=1, max_fields=1)
    # What is not encrypted goes on no disk; the body is bounded.
    parser.spool_max_size = sys.maxsize
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise _invalid(f"the form cannot be read: {error.message}") from None
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise _invalid("is missing: send the file in a part of this name, with a file name")
    name = " ".join((file.filename or "").replace("\0", " ").split())[:_MOST_NAME]
    return name or "document", await file.read()


def _invalid(message: str) -> RequestValidationError:
    return RequestValidationError([{"type": "value_error", "loc": ("body", "file"), "msg": message}])


def _refused(refused: Refused) -> Problem:
    errors = [{"field": refused.field, "message": str(refused)}]
    return Problem(422, refused.type, "The collection is refused", str(refused), errors=errors)


def _taken(taken: NameTaken) -> Problem:
    return Problem(409, "name-taken", "The name is taken", str(taken), collection_id=str(taken.collection_id))
