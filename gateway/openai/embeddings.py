"""Embeddings: https://platform.openai.com/docs/api-reference/embeddings"""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator

from backplane.security.principal import Principal
from command_api import limit_answers
from command_api.embeddings import MOST_TEXTS
from command_api.limit_answers import RATE_HEADERS
from command_api.submitting import RecordsRefusals
from gateway.callers import holds
from gateway.embedding import embedded, floats
from gateway.openai import errors
from gateway.openai.answer import EmbeddingList

router = APIRouter(prefix="/v1", tags=["openai"], route_class=RecordsRefusals)

Caller = Annotated[Principal, Depends(holds("embeddings.make"))]
Text = Annotated[str, Field(min_length=1, examples=["The sky is blue."])]


class EmbeddingRequest(BaseModel):
    """Token ids are refused: they are of another vocabulary than the embedder's."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"model": "text-embedding-3-small", "input": "The sky is blue."}]},
    )

    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MOST_TEXTS)] = Field(
        description="a text, or several", examples=["The sky is blue."]
    )
    model: str = Field(description="an embedder, or its model", examples=["text-embedding-3-small"])
    encoding_format: Literal["float", "base64"] | None = Field(None, description="of the vectors; none: `float`")
    dimensions: int | None = Field(None, ge=1, description="only as many as the embedder's vectors have")
    user: str | None = Field(None, max_length=512, description="taken, and of no effect")

    @field_validator("input", mode="before")
    @classmethod
    def _is_text(cls, given: Any) -> Any:
        first = given[0] if isinstance(given, list) and given else None
        if isinstance(first, int | list):
            raise ValueError("token ids are not taken, since embedders have vocabularies of their own: send texts")
        return given

    @property
    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input


@router.post(
    "/embeddings",
    response_model=EmbeddingList,
    response_class=Response,
    summary="OpenAI: embeddings",
    responses={200: {"headers": RATE_HEADERS}, **errors.responses(400, 401, 403, 404, 413, 429, 500, 503)},
)
async def create_embeddings(request: Request, principal: Caller, body: EmbeddingRequest) -> Response:
    """Vectors of texts, by the embedders that collections have, too. A client that goes away stops what is not made
    yet."""
    made = await embedded(request, principal, body.model, body.texts, dimensions=body.dimensions)
    return errors.json_response(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": _written(vector, body.encoding_format)}
                for index, vector in enumerate(made.vectors)
            ],
            "model": made.model,
            "usage": {"prompt_tokens": made.tokens, "total_tokens": made.tokens},
        },
        limit_answers.headers(made.standings),
    )


def _written(vector: bytes, encoding: str | None) -> str | tuple[float, ...]:
    if encoding == "base64":
        return base64.b64encode(vector).decode()
    return floats(vector)
