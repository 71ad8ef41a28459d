"""Messages: what people wrote and what models answered, as a tree. An answer's id is its generation's."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from event_schemas.codec import AnyEnvelope
from event_schemas.control_plane import ConversationDeleted
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
from projections.lifecycle import QUEUED, STAGES, advance, ended
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
        "content": "text",
        "parts": "jsonb",
        "tool_calls": "jsonb",
        "tool_call_id": "text",
        "reasoning": "text",
        "delta_lengths": "jsonb",
        "logprobs": "jsonb",
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

_WRITTEN = ("content", "parts", "tool_calls", "tool_call_id", "reasoning", "delta_lengths", "logprobs")
"""What is erased with the conversation."""

COMPLETE = "complete"
"""Status of a message that a person wrote. An answer's is its generation's."""

_Stage = SubmitPrompt | GenerationStarted | GenerationRestarted | Terminal


def _affects(envelope: AnyEnvelope) -> Sequence[Selector]:
    tenant_id = envelope.tenantid
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
        case ConversationDeleted(conversation_id=conversation_id):
            return (Where(tenant_id, "conversation_id", conversation_id),)
    return ()


def _beside(envelope: AnyEnvelope) -> Beside | None:
    match envelope.data:
        case (
            SubmitPrompt(conversation_id=conversation_id)
            | GenerationStarted(conversation_id=conversation_id)
            | GenerationRestarted(conversation_id=conversation_id)
            | GenerationCompleted(conversation_id=conversation_id)
            | GenerationFailed(conversation_id=conversation_id)
            | GenerationCancelled(conversation_id=conversation_id)
            | ConversationDeleted(conversation_id=conversation_id)
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
    if row is None or not conversations.is_deleted(conversation):
        return row
    return {**row, **dict.fromkeys(_WRITTEN), "erased": True}


def _written(key: Key, prompt: SubmitPrompt, time: datetime) -> Row | None:
    ordinal = next(place for place, message_id in enumerate(prompt.input_message_ids) if message_id == key[1])
    if ordinal >= len(prompt.content.messages):
        return None
    message = prompt.content.messages[ordinal]
    return _new(key, prompt.conversation_id, prompt.generation_id) | {
        "parent_message_id": prompt.input_message_ids[ordinal - 1] if ordinal else prompt.parent_message_id,
        "role": message.role,
        "content": message.text,
        "parts": None if isinstance(message.content, str) else [part.model_dump() for part in message.content],
        "tool_calls": [call.model_dump() for call in message.tool_calls] or None,
        "tool_call_id": message.tool_call_id,
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
                "created_at": time if row["created_at"] is None else min(row["created_at"], time),
            }
        case GenerationStarted() | GenerationRestarted():
            return row
        case _ if was_ended:
            return row
        case _:
            return {
                **row,
                "content": stage.content.text,
                "tool_calls": [call.model_dump() for call in stage.content.tool_calls] or None,
                "reasoning": stage.content.reasoning or None,
                "served_model": stage.served and stage.served.model,
                "delta_lengths": list(stage.content.delta_lengths),
                "logprobs": list(stage.content.logprobs) or None,
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
    handles=STAGES | {ConversationDeleted},
    affects=_affects,
    fold=_fold,
    beside=_beside,
    looks_at=(conversations.TABLE.name,),
)
