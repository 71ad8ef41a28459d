"""Messages: what people wrote and what models answered, as a tree. An answer's id is its generation's.

What was written is stored as it was published, for nobody here has a key. All of it stands with the answer: ``prompt``
is what the whole prompt says, in which a message finds itself by its ordinal.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from event_schemas.codec import AnyEnvelope
from event_schemas.control_plane import ConversationDeleted
from event_schemas.erasure import ContentErased
from event_schemas.generation import (
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
    GenerationRestarted,
    GenerationStarted,
    SubmitPrompt,
    Terminal,
)
from projections import conversations
from projections.lifecycle import QUEUED, STAGES, advance, ended, is_beside
from projections.table import Beside, Key, Projection, Row, Selector, Table, Where

TABLE = Table(
    name="messages",
    columns={
        "id": "uuid",
        "tenant_id": "uuid",
        "conversation_id": "uuid",
        "parent_message_id": "uuid",
        "generation_id": "uuid",
        "role": "text",
        "prompt": "jsonb",
        "answer": "jsonb",
        "deltas": "integer",
        "status": "text",
        "model": "text",
        "served_model": "text",
        "attempt": "integer",
        "ordinal": "integer",
        "created_at": "timestamptz",
        "erased": "boolean",
    },
    key=("tenant_id", "id"),
    selected_by=("conversation_id",),
)

COMPLETE = "complete"
"""Status of a message that a person wrote. An answer's is its generation's."""

_Stage = SubmitPrompt | GenerationStarted | GenerationRestarted | Terminal


def _affects(envelope: AnyEnvelope) -> Sequence[Selector]:
    tenant_id = envelope.tenantid
    if is_beside(envelope.data):
        return ()
    match envelope.data:
        case SubmitPrompt(input_message_ids=input_ids, generation_id=generation_id, fell_back=()):
            return [(tenant_id, message_id) for message_id in (*input_ids, generation_id)]
        case (
            GenerationStarted(generation_id=generation_id)
            | GenerationRestarted(generation_id=generation_id)
            | GenerationCompleted(generation_id=generation_id)
            | GenerationFailed(generation_id=generation_id)
            | GenerationCancelled(generation_id=generation_id)
        ):
            return ((tenant_id, generation_id),)
        case ConversationDeleted(conversation_id=conversation_id) | ContentErased(conversation_id=conversation_id):
            return (Where(tenant_id, "conversation_id", conversation_id),)
    return ()


def _beside(envelope: AnyEnvelope) -> Beside | None:
    if is_beside(envelope.data):
        return None
    match envelope.data:
        case (
            SubmitPrompt(conversation_id=conversation_id)
            | GenerationStarted(conversation_id=conversation_id)
            | GenerationRestarted(conversation_id=conversation_id)
            | GenerationCompleted(conversation_id=conversation_id)
            | GenerationFailed(conversation_id=conversation_id)
            | GenerationCancelled(conversation_id=conversation_id)
            | ConversationDeleted(conversation_id=conversation_id)
            | ContentErased(conversation_id=conversation_id)
        ):
            return conversations.beside(envelope.tenantid, conversation_id)
    return None


def _fold(key: Key, row: Row | None, envelope: AnyEnvelope, conversation: Row | None) -> Row | None:
    match envelope.data:
        case SubmitPrompt() as prompt if key[1] != prompt.generation_id:
            row = row or _written(key, prompt, envelope.time)
        case (
            SubmitPrompt()
            | GenerationStarted()
            | GenerationRestarted()
            | GenerationCompleted()
            | GenerationFailed()
            | GenerationCancelled()
        ) as stage:
            row = _answered(key, row, stage, envelope.time)
    if row is None or not _is_erased(row, conversation):
        return row
    return {**row, "prompt": None, "answer": None, "erased": True}


def _is_erased(row: Row, conversation: Row | None) -> bool:
    if row["erased"] or (conversation is not None and conversation["deleted"]):
        return True
    return any(conversations.is_gone(row[written], conversation) for written in ("prompt", "answer"))


def _written(key: Key, prompt: SubmitPrompt, time: datetime) -> Row | None:
    ordinal = next(place for place, message_id in enumerate(prompt.input_message_ids) if message_id == key[1])
    if ordinal >= len(prompt.roles):
        return None
    return _new(key, prompt.conversation_id, prompt.generation_id) | {
        "parent_message_id": prompt.input_message_ids[ordinal - 1] if ordinal else prompt.parent_message_id,
        "role": prompt.roles[ordinal],
        "erased": not prompt.keeps_content,
        "status": COMPLETE,
        "ordinal": ordinal,
        "created_at": time,
    }


def _answered(key: Key, row: Row | None, stage: _Stage, time: datetime) -> Row:
    if row is None:
        row = _new(key, stage.conversation_id, stage.generation_id) | {"role": "assistant", "status": QUEUED}
    was_ended = ended(row)
    row = advance(row, stage)
    match stage:
        case SubmitPrompt(input_message_ids=input_ids):
            return {
                **row,
                "parent_message_id": input_ids[-1] if input_ids else stage.parent_message_id,
                "ordinal": len(input_ids),
                "prompt": stage.content.model_dump(),
                "erased": row["erased"] or not stage.keeps_content,
                "created_at": time if row["created_at"] is None else min(row["created_at"], time),
            }
        case GenerationStarted() | GenerationRestarted():
            return row
        case _ if was_ended:
            return row
        case _:
            return {
                **row,
                "answer": stage.content and stage.content.model_dump(),
                "deltas": stage.deltas,
                "served_model": stage.served and stage.served.model,
            }


def _new(key: Key, conversation_id: UUID, generation_id: UUID) -> Row:
    return dict.fromkeys(TABLE.columns) | {
        "tenant_id": key[0],
        "id": key[1],
        "conversation_id": conversation_id,
        "generation_id": generation_id,
        "attempt": 0,
        "ordinal": 0,
        "erased": False,
    }


PROJECTION = Projection(
    table=TABLE,
    handles=STAGES | {ConversationDeleted, ContentErased},
    affects=_affects,
    fold=_fold,
    beside=_beside,
    looks_at=(conversations.TABLE.name,),
)
