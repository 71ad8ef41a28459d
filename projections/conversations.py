"""Conversations: who began it, what it is called, and what was last written in it."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from event_schemas.codec import AnyEnvelope
from event_schemas.control_plane import ConversationDeleted, ConversationRenamed
from event_schemas.erasure import ContentErased
from event_schemas.generation import GenerationCancelled, GenerationCompleted, GenerationFailed, SubmitPrompt
from projections.lifecycle import ENDED
from projections.table import Beside, Key, Projection, Row, Selector, Table

TABLE = Table(
    name="conversations",
    columns={
        "id": "uuid",
        "tenant_id": "uuid",
        "user_id": "uuid",
        "title": "jsonb",
        "renamed": "boolean",
        "first_generation_id": "uuid",
        "last_message_id": "uuid",
        "created_at": "timestamptz",
        "updated_at": "timestamptz",
        "deleted": "boolean",
        "erased": "boolean",
    },
    key=("tenant_id", "id"),
)


def beside(tenant_id: UUID, conversation_id: UUID) -> Beside:
    """How other projections look at a conversation's row."""
    return Beside(TABLE.name, (tenant_id, conversation_id))


def is_gone(written: Row | None, conversation: Row | None) -> bool:
    """Whether this content is not to be stored, since its conversation, of this row, was deleted or erased.

    What is sealed stays where a conversation was erased: nobody can read it, and what is written there later, under
    another key, is to be read. What is plain was written by an older release, before it.
    """
    if written is None or conversation is None:
        return False
    return conversation["deleted"] or (conversation["erased"] and "plain" in written)


def _affects(envelope: AnyEnvelope) -> Sequence[Selector]:
    match envelope.data:
        case (
            SubmitPrompt(conversation_id=conversation_id, fell_back=())
            | GenerationCompleted(conversation_id=conversation_id)
            | GenerationFailed(conversation_id=conversation_id)
            | GenerationCancelled(conversation_id=conversation_id)
            | ConversationRenamed(conversation_id=conversation_id)
            | ConversationDeleted(conversation_id=conversation_id)
            | ContentErased(conversation_id=conversation_id)
        ):
            return ((envelope.tenantid, conversation_id),)
    return ()


def _fold(key: Key, row: Row | None, envelope: AnyEnvelope, _: Row | None) -> Row:
    row = _folded(row or _new(key), envelope)
    return {**row, "title": None} if is_gone(row["title"], row) else row


def _folded(row: Row, envelope: AnyEnvelope) -> Row:
    if isinstance(envelope.data, ContentErased):
        return {**row, "erased": True}
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
            return {**row, "title": content.model_dump(), "renamed": True}
        case _:
            return {**row, "deleted": True}


def _new(key: Key) -> Row:
    return dict.fromkeys(TABLE.columns) | {
        "tenant_id": key[0],
        "id": key[1],
        "renamed": False,
        "deleted": False,
        "erased": False,
    }


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
    if row["renamed"] or row["first_generation_id"] != prompt.generation_id:
        return row
    title = prompt.title if prompt.keeps_content else None
    return {**row, "title": title and title.model_dump()}


PROJECTION = Projection(
    table=TABLE,
    handles=frozenset((SubmitPrompt, *ENDED, ConversationRenamed, ConversationDeleted, ContentErased)),
    affects=_affects,
    fold=_fold,
)
