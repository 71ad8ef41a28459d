"""Embeddings: https://platform.openai.com/docs/api-reference/embeddings"""

from __future__ import annotations

import base64
import struct
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator

from backplane.ports.embeddings import EmbeddingFailed, TextsRefused
from backplane.security.principal import Principal
from backplane.web.problems import Problem, unavailable
from command_api import limit_answers
from command_api.embeddings import MOST_TEXTS
from command_api.limit_answers import RATE_HEADERS
from command_api.ports import ports_of as command_ports_of
from command_api.submitting import RecordsRefusals, admission_answers
from gateway.callers import holds
from gateway.openai import errors
from gateway.openai.answer import EmbeddingList
from gateway.ports import ports_of
from gateway.presence import while_there

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
    ports = command_ports_of(request)
    making = ports.embedding.embed(
        principal,
        ports_of(request).embedder(body.model),
        body.texts,
        dimensions=body.dimensions,
        traceparent=request.headers.get("traceparent"),
    )
    try:
        with admission_answers(ports, body.model):
            made = await while_there(request, making)
    except TextsRefused as refused:
        where = [{"field": refused.field, "message": str(refused)}]
        raise Problem(
            400, refused.reason.replace("_", "-"), "The texts are refused", str(refused), errors=where
        ) from None
    except EmbeddingFailed as failed:
        raise unavailable("embedder", f"The embeddings were not made: {failed}.") from None
    ports.limit_warnings.notice(made.standings)
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
    return struct.unpack(f"<{len(vector) // 4}f", vector)
