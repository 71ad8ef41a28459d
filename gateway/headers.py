"""Headers that all doors take and give."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import Header

from command_api.idempotency import MOST_CHARACTERS
from gateway.asking import CONVERSATION_HEADER, GENERATION_HEADER

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=MOST_CHARACTERS - 4,
        description="any string of yours; repeating a request with it asks nothing again, and gives the same answer",
    ),
]
ConversationId = Annotated[
    UUID | None,
    Header(
        alias=CONVERSATION_HEADER,
        description="goes on with this conversation, which an answer named in the same header: of the messages, those"
        " after the last assistant's are new. Without it each call is its own",
    ),
]

NAMES: dict[str, Any] = {
    CONVERSATION_HEADER: {"description": "the conversation", "schema": {"type": "string"}},
    GENERATION_HEADER: {"description": "the generation", "schema": {"type": "string"}},
}
"""Of answers, for the OpenAPI document."""
