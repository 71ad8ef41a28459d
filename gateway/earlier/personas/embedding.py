"""`/embedding/document`, `/embedding/query`: vectors of texts, as bare lists of numbers."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from backplane.security.principal import Principal
from command_api import limit_answers
from command_api.embeddings import MOST_TEXTS
from command_api.limit_answers import RATE_HEADERS
from command_api.submitting import RecordsRefusals
from gateway.earlier.answering import invalid
from gateway.earlier.callers import holds_as_before
from gateway.earlier.personas.errors import responses
from gateway.embedding import embedded, floats
from gateway.ports import ports_of

router = APIRouter(prefix="/embedding", tags=["earlier: personas"], route_class=RecordsRefusals)

Caller = Annotated[Principal, Depends(holds_as_before("embeddings.make"))]
Given = Annotated[str | None, Query(description="what a vector is made of", examples=["The sky is blue."])]

_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The vector; where several texts were sent, a list of vectors",
        "headers": RATE_HEADERS,
        "content": {"application/json": {"schema": {"type": "array"}, "example": [0.0132, -0.0745]}},
    }
}


class EmbeddingTexts(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"text": "The sky is blue."}]})

    text: str | Annotated[list[str], Field(min_length=1, max_length=MOST_TEXTS)] = Field(
        description="what a vector is made of, or several such texts", examples=["The sky is blue."]
    )


@router.get(
    "/document",
    response_class=Response,
    summary="Personas: a vector of a document",
    responses={**_ANSWER, **responses(400, 401, 403, 429, 503)},
)
@router.get(
    "/query",
    response_class=Response,
    summary="Personas: a vector of a question",
    responses={**_ANSWER, **responses(400, 401, 403, 429, 503)},
)
async def embed(request: Request, principal: Caller, text: Given = None) -> Response:
    """By the first embedder of the settings, to whom a document and a question are the same."""
    return await _vectors(request, principal, text)


@router.post(
    "/document",
    response_class=Response,
    summary="Personas: vectors of documents that a URL is too short for",
    responses={**_ANSWER, **responses(400, 401, 403, 413, 429, 503)},
)
@router.post(
    "/query",
    response_class=Response,
    summary="Personas: vectors of questions that a URL is too short for",
    responses={**_ANSWER, **responses(400, 401, 403, 413, 429, 503)},
)
async def embed_body(
    request: Request, principal: Caller, text: Given = None, body: EmbeddingTexts | None = None
) -> Response:
    """As `GET`; what the URL does not say, the body does."""
    return await _vectors(request, principal, text if text is not None or body is None else body.text)


async def _vectors(request: Request, principal: Principal, given: str | list[str] | None) -> Response:
    texts = [given] if isinstance(given, str) else given or []
    if not texts or not all(texts):
        raise invalid("text", "is missing: send it in the URL, or as JSON")
    made = await embedded(request, principal, ports_of(request).settings.knowledge.default_embedder, texts)
    vectors = [floats(one) for one in made.vectors]
    headers = limit_answers.headers(made.standings)
    return Response(orjson.dumps(vectors[0] if isinstance(given, str) else vectors), 200, headers, "application/json")
