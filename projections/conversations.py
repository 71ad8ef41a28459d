"""Conversations: who began it, what it is called, and what was last written in it."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from event_schemas.codec import AnyEnvelope
from event_schemas.control_plane import ConversationDeleted, ConversationRenamed
from event_schemas.conversations import (
    ConversationBegun,
    ConversationEnded,
    ConversationForked,
    ConversationResumed,
    ConversationState,
    ConversationSuspended,
    ConversationTitled,
)
from event_schemas.erasure import ContentErased
from event_schemas.generation import (
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
    SubmitPrompt,
    Terminal,
)
from event_schemas.payload import Payload
from projections.lifecycle import ENDED, is_beside
from projections.persona_versions import REF, ref_row
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
        **REF,
        "titled": "boolean",
        "state": "text",
        "state_at": "timestamptz",
        "forked_from": "uuid",
        "forked_at_message": "uuid",
        "batch_id": "uuid",
        "begun": "boolean",
    },
    key=("tenant_id", "id"),
)

_STATES: dict[type[Payload], ConversationState] = {
    ConversationSuspended: "suspended",
    ConversationResumed: "active",
    ConversationEnded: "ended",
}


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
    if is_beside(envelope.data):
        return ()
    match envelope.data:
        case (
            SubmitPrompt(conversation_id=conversation_id, fell_back=())
            | GenerationCompleted(conversation_id=conversation_id)
            | GenerationFailed(conversation_id=conversation_id)
            | GenerationCancelled(conversation_id=conversation_id)
            | ConversationRenamed(conversation_id=conversation_id)
            | ConversationDeleted(conversation_id=conversation_id)
            | ContentErased(conversation_id=conversation_id)
            | ConversationBegun(conversation_id=conversation_id)
            | ConversationForked(conversation_id=conversation_id)
            | ConversationTitled(conversation_id=conversation_id)
            | ConversationSuspended(conversation_id=conversation_id)
            | ConversationResumed(conversation_id=conversation_id)
            | ConversationEnded(conversation_id=conversation_id)
        ):
            return ((envelope.tenantid, conversation_id),)
    return ()


def _fold(key: Key, row: Row | None, envelope: AnyEnvelope, _: Row | None) -> Row:
    row = _folded(row or _new(key), envelope)
    return {**row, "title": None} if is_gone(row["title"], row) else row


def _folded(row: Row, envelope: AnyEnvelope) -> Row:
    match envelope.data:
        case ContentErased():
            return {**row, "erased": True}
        case ConversationTitled(content=content):
            # Nobody wrote anything, so it keeps its place in lists.
            return {**row, "title": row["title"] if row["renamed"] else content.model_dump(), "titled": True}
    updated = envelope.time if row["updated_at"] is None else max(row["updated_at"], envelope.time)
    row = {**row, "updated_at": updated}
    match envelope.data:
        case SubmitPrompt() as prompt:
            row = {**row, "batch_id": prompt.batch_id or row["batch_id"]}
            return _with_title(_with_prompt(_with_message(row, prompt), prompt, envelope), prompt)
        case (GenerationCompleted() | GenerationFailed() | GenerationCancelled()) as end:
            return _with_message(row, end)
        case ConversationRenamed(content=content):
            return {**row, "title": content.model_dump(), "renamed": True}
        case ConversationBegun() as begun:
            return _begun(row, begun, envelope)
        case ConversationForked() as fork:
            return _forked(row, fork, envelope)
        case ConversationSuspended() | ConversationResumed() | ConversationEnded() as change:
            return _changed(row, _STATES[type(change)], envelope)
        case _:
            return {**row, "deleted": True}


def _new(key: Key) -> Row:
    return dict.fromkeys(TABLE.columns) | {
        "tenant_id": key[0],
        "id": key[1],
        "renamed": False,
        "deleted": False,
        "erased": False,
        "titled": False,
        "state": "active",
        "begun": False,
    }


def _begun(row: Row, begun: ConversationBegun, envelope: AnyEnvelope) -> Row:
    row = {**row, "user_id": begun.user_id, "created_at": envelope.time, "begun": True}
    if begun.title is None or row["renamed"]:
        return row
    return {**row, "title": begun.title.model_dump(), "renamed": True}


def _forked(row: Row, fork: ConversationForked, envelope: AnyEnvelope) -> Row:
    if row["last_message_id"] is None:
        row = {**row, "last_message_id": fork.message_id, **ref_row(fork.persona)}
    named = row["renamed"] or row["titled"]
    return {
        **row,
        "user_id": fork.user_id,
        "title": row["title"] if named else fork.title and fork.title.model_dump(),
        "created_at": envelope.time,
        "forked_from": fork.from_conversation_id,
        "forked_at_message": fork.message_id,
    }


def _changed(row: Row, state: ConversationState, envelope: AnyEnvelope) -> Row:
    if row["state"] == "ended" or (row["state_at"] is not None and row["state_at"] > envelope.time):
        return row
    return {**row, "state": state, "state_at": envelope.time}


def _with_message(row: Row, said: SubmitPrompt | Terminal) -> Row:
    newest = row["last_message_id"]
    if newest is None or newest < said.generation_id:
        return {**row, "last_message_id": said.generation_id, **ref_row(said.persona)}
    # An end that an older release wrote names no persona.
    return {**row, **ref_row(said.persona)} if newest == said.generation_id and said.persona is not None else row


def _with_prompt(row: Row, prompt: SubmitPrompt, envelope: AnyEnvelope) -> Row:
    first = row["first_generation_id"]
    if first is not None and first <= prompt.generation_id:
        return row
    if row["begun"] or row["forked_from"] is not None:
        return {**row, "first_generation_id": prompt.generation_id}
    return {
        **row,
        "first_generation_id": prompt.generation_id,
        "user_id": prompt.user_id,
        "created_at": envelope.time,
    }


def _with_title(row: Row, prompt: SubmitPrompt) -> Row:
    named = row["renamed"] or row["titled"] or row["forked_from"] is not None
    if named or row["first_generation_id"] != prompt.generation_id:
        return row
    title = prompt.title if prompt.keeps_content else None
    return {**row, "title": title and title.model_dump()}


PROJECTION = Projection(
    table=TABLE,
    handles=frozenset(
        (
            SubmitPrompt,
            *ENDED,
            ConversationRenamed,
            ConversationDeleted,
            ContentErased,
            ConversationBegun,
            ConversationForked,
            ConversationTitled,
            *_STATES,
        )
    ),
    affects=_affects,
    fold=_fold,
)
