"""Summaries: what a model wrote of a conversation up to a message, as it was published."""

from __future__ import annotations

from collections.abc import Sequence

from event_schemas.codec import AnyEnvelope
from event_schemas.control_plane import ConversationDeleted
from event_schemas.conversations import ConversationSummarised
from projections import conversations
from projections.table import Beside, Drop, Key, Projection, Row, Selector, Table

TABLE = Table(
    name="conversation_summaries",
    columns={
        "generation_id": "uuid",
        "tenant_id": "uuid",
        "conversation_id": "uuid",
        "up_to_message_id": "uuid",
        "content": "jsonb",
        "created_at": "timestamptz",
    },
    key=("tenant_id", "generation_id"),
    selected_by=("conversation_id",),
)


def _affects(envelope: AnyEnvelope) -> Sequence[Selector]:
    match envelope.data:
        case ConversationSummarised(generation_id=generation_id):
            return ((envelope.tenantid, generation_id),)
        case ConversationDeleted(conversation_id=conversation_id):
            return (Drop(envelope.tenantid, "conversation_id", conversation_id),)
    return ()


def _beside(envelope: AnyEnvelope) -> Beside | None:
    if isinstance(envelope.data, ConversationSummarised):
        return conversations.beside(envelope.tenantid, envelope.data.conversation_id)
    return None


def _fold(key: Key, row: Row | None, envelope: AnyEnvelope, conversation: Row | None) -> Row | None:
    made = envelope.data
    if not isinstance(made, ConversationSummarised) or (conversation is not None and conversation["deleted"]):
        return None
    return {
        "tenant_id": key[0],
        "generation_id": made.generation_id,
        "conversation_id": made.conversation_id,
        "up_to_message_id": made.up_to_message_id,
        "content": made.content.model_dump(),
        "created_at": envelope.time,
    }


PROJECTION = Projection(
    table=TABLE,
    handles=frozenset((ConversationSummarised, ConversationDeleted)),
    affects=_affects,
    fold=_fold,
    beside=_beside,
    looks_at=(conversations.TABLE.name,),
)
