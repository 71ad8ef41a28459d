"""Conversations: who began it, what it is called, and what was last written in it."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from event_schemas.codec import AnyEnvelope
from event_schemas.control_plane import ConversationDeleted, ConversationRenamed
from event_schemas.generation import (
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
    PromptContent,
    SubmitPrompt,
)
from projections.lifecycle import ENDED
from projections.table import Beside, Key, Projection, Row, Selector, Table

TITLE_LENGTH = 60
"""Most characters of a title that a prompt gives."""

TABLE = Table(
    name="conversations",
    columns={
        "id": "uuid",
        "tenant_id": "uuid",
        "user_id": "uuid",
        "title": "text",
        "renamed": "boolean",
        "first_generation_id": "uuid",
        "last_message_id": "uuid",
        "created_at": "timestamptz",
        "updated_at": "timestamptz",
        "deleted": "boolean",
    },
    key=("tenant_id", "id"),
)


def beside(tenant_id: UUID, conversation_id: UUID) -> Beside:
    """How other projections look at a conversation's row."""
    return Beside(TABLE.name, (tenant_id, conversation_id))


def is_deleted(conversation: Row | None) -> bool:
    """Whether what was written in the conversation of this row is to be erased."""
    return conversation is not None and conversation["deleted"]


def _affects(envelope: AnyEnvelope) -> Sequence[Selector]:
    match envelope.data:
        case (
            SubmitPrompt(conversation_id=conversation_id, fell_back=())
            | GenerationCompleted(conversation_id=conversation_id)
            | GenerationFailed(conversation_id=conversation_id)
            | GenerationCancelled(conversation_id=conversation_id)
            | ConversationRenamed(conversation_id=conversation_id)
            | ConversationDeleted(conversation_id=conversation_id)
        ):
            return ((envelope.tenantid, conversation_id),)
    return ()


def _fold(key: Key, row: Row | None, envelope: AnyEnvelope, _: Row | None) -> Row:
    if row is None:
        row = dict.fromkeys(TABLE.columns) | {"tenant_id": key[0], "id": key[1], "renamed": False, "deleted": False}
    updated = envelope.time if row["updated_at"] is None else max(row["updated_at"], envelope.time)
    row = {**row, "updated_at": updated}
    match envelope.data:
        case SubmitPrompt() as prompt:
            return _with_title(_with_prompt(_with_message(row, prompt.generation_id), prompt, envelope), prompt)
        case (
            GenerationCompleted(generation_id=generation_id)
            | GenerationFailed(generation_id=generation_id)
            | GenerationCancelled(generation_id=generation_id)
        ):
            return _with_message(row, generation_id)
        case ConversationRenamed(content=content):
            return {**row, "title": None if row["deleted"] else content.title, "renamed": True}
        case _:
            return {**row, "title": None, "deleted": True}


def _with_message(row: Row, generation_id: UUID) -> Row:
    newest = row["last_message_id"]
    return row if newest is not None and newest >= generation_id else {**row, "last_message_id": generation_id}


def _with_prompt(row: Row, prompt: SubmitPrompt, envelope: AnyEnvelope) -> Row:
    first = row["first_generation_id"]
    if first is not None and first <= prompt.generation_id:
        return row
    return {
        **row,
        "first_generation_id": prompt.generation_id,
        "user_id": prompt.user_id,
        "created_at": envelope.time,
    }


def _with_title(row: Row, prompt: SubmitPrompt) -> Row:
    if row["deleted"] or row["renamed"] or row["first_generation_id"] != prompt.generation_id:
        return row
    return {**row, "title": _title(prompt.content)}


def _title(content: PromptContent) -> str | None:
    said = next((message.text for message in content.messages if message.role == "user"), "")
    return " ".join(said.split())[:TITLE_LENGTH].rstrip() or None


PROJECTION = Projection(
    table=TABLE,
    handles=frozenset((SubmitPrompt, *ENDED, ConversationRenamed, ConversationDeleted)),
    affects=_affects,
    fold=_fold,
)
