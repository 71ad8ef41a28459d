"""`/rag/`: a collection of documents that answers come from."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from backplane.security.principal import Principal
from backplane.web.problems import Problem, not_found
from command_api.admission import Refused
from command_api.collections import NameTaken, NoSuchCollection, NoVectors
from command_api.message_body import Text
from command_api.ports import ports_of, settle
from command_api.submitting import RecordsRefusals
from gateway.earlier.callers import holds_as_before
from gateway.earlier.characters.chats import ChatAnswer, ChatId, Chatter, Model, said
from gateway.earlier.details import responses
from query_api import collection_readers

router = APIRouter(tags=["earlier: characters"], route_class=RecordsRefusals)

Manager = Annotated[Principal, Depends(holds_as_before("collections.manage"))]

COLLECTION = "rag"
"""What the tenant's is called."""
_NAME_LENGTH = 60
_NOTHING: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "It is done",
        "content": {"application/json": {"schema": {"type": "null"}, "examples": {"nothing": {"summary": "nothing"}}}},
    }
}


class RagRequest(BaseModel):
    query: str = Field(description="the question", examples=["What do you know about LLMOps?"])
    model: Model
    chat_id: ChatId = None
    use_reranker: bool = Field(
        True, description="taken, and of no effect: the operator says whether there is one", examples=[True]
    )
    top_k_retrieve: int = Field(
        5, ge=1, description="taken, and of no effect: all that is found is looked at", examples=[5]
    )
    top_k_rank: int = Field(
        2, ge=1, le=20, description="pieces of documents at most that are answered from", examples=[2]
    )
    max_out_tokens: int | None = Field(None, ge=1, description="most tokens of the answer", examples=[1024])


class RagDocument(BaseModel):
    text: Text = Field(min_length=1, description="the document", examples=["All you need is LLMOps"])


@router.post(
    "/rag/",
    summary="Characters: ask the documents",
    responses=responses(400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 502, 503),
)
async def ask_documents(request: Request, principal: Chatter, body: RagRequest) -> ChatAnswer:
    """What has to do with the question is put before it. A client that goes away stops the answer."""
    collection_id = await _collection(request, principal)
    if collection_id is None:
        raise not_found("document yet")
    source = {"kind": "collection", "collection_id": collection_id, "most": body.top_k_rank}
    parameters = {"max_tokens": body.max_out_tokens}
    return await said(request, principal, body.chat_id, body.model, body.query, sources=[source], parameters=parameters)


@router.post(
    "/add_to_rag_db/",
    summary="Characters: add a document",
    responses={**_NOTHING, **responses(400, 401, 403, 409, 413, 415, 422, 429, 503)},
)
async def add_document(request: Request, principal: Manager, body: RagDocument) -> None:
    """To the collection `rag`, which is made for the first one. It is found once it has been read."""
    collections = ports_of(request).collections
    name = " ".join(body.text.replace("\0", " ").split())[:_NAME_LENGTH] or "document"
    try:
        collection_id = await _collection(request, principal) or await _make(request, principal)
        added = await collections.add_document(
            principal.tenant_id, collection_id, name, body.text.encode(), actor=principal.actor
        )
    except Refused as refused:
        raise Problem(409, refused.type, "The document is refused", str(refused)) from None
    except NoSuchCollection:
        raise not_found("collection") from None
    except NoVectors:
        detail = "Documents need pgvector, which the database does not have."
        raise Problem(503, "no-vectors", "No vectors", detail) from None
    await settle(request, principal, added.command_id)


@router.get(
    "/reindex/",
    summary="Characters: read the documents again",
    responses={**_NOTHING, **responses(401, 403, 404, 429, 503)},
)
async def reindex(request: Request, principal: Manager) -> None:
    """From the kept files, in the background."""
    collection_id = await _collection(request, principal)
    try:
        if collection_id is None:
            raise NoSuchCollection(COLLECTION)
        await ports_of(request).collections.reindex(principal.tenant_id, collection_id, actor=principal.actor)
    except NoSuchCollection:
        raise not_found("document yet") from None
    ports_of(request).relay.wake()


async def _collection(request: Request, principal: Principal) -> UUID | None:
    """None: nothing was added yet."""
    rows = await collection_readers.collections(request.app.state.query, principal)
    return next((row["id"] for row in rows if row["name"] == COLLECTION), None)


async def _make(request: Request, principal: Principal) -> UUID:
    """Raises Refused, NoVectors."""
    try:
        made = await ports_of(request).collections.create(
            principal.tenant_id, COLLECTION, description=None, embedder=None, language="simple", actor=principal.actor
        )
    except NameTaken as taken:
        return taken.collection_id
    return made.id
