"""Embeddings that were made for a caller. Neither texts nor vectors are in the log."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from pydantic import Field

from event_schemas.payload import Payload, Usage


class EmbeddingsMade(Payload):
    """A request had vectors made of texts; where it broke off, of those before."""

    wire_name: ClassVar[str] = "embeddings.made.v1"

    embedding_id: UUID = Field(description="the request")
    user_id: UUID | None = None
    key_id: UUID
    model: str = Field(description="the embedder, as the settings call it")
    inputs: int = Field(ge=1, description="texts")
    usage: Usage
    backend: str = Field(description="kind of the embedder")
    served_model: str = Field(description="whose vectors they are: only those of one can be compared")

    def subject(self) -> str:
        return f"embeddings:{self.embedding_id}"
