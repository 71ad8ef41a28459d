"""Where a prompt goes in a conversation, and what its owner does to a conversation as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from backplane.ports.database import Database, Row, TenantSession
from backplane.ports.identifiers import new_id
from backplane.security.principal import Principal
from command_api import outbox
from command_api.prompt import PromptBody
from event_schemas.control_plane import (
    ConversationDeleted,
    ConversationRenamed,
    DeleteConversation,
    RenameConversation,
    TitleContent,
)
from event_schemas.envelope import Envelope
from event_schemas.generation import CancelGeneration
from event_schemas.payload import Payload

SOURCE = "/parley/command_api"


class NoSuch(LookupError):
    """Not there, not yet projected, or somebody else's. ``args[0]`` names what: conversation, message, generation."""


@dataclass(frozen=True, slots=True)
class Place:
    conversation_id: UUID
    parent_message_id: UUID | None


async def place(database: Database, principal: Principal, body: PromptBody) -> Place:
    """Where ``body`` goes. A prompt that names nothing begins a conversation, and asks the database nothing.

    Raises NoSuch, DatabaseUnavailable.
    """
    if body.begins_a_conversation:
        return Place(new_id(), None)
    async with database.tenant(principal.tenant_id) as session:
        if body.parent_message_id is None:
            assert body.conversation_id is not None
            conversation = await _conversation(session, principal, body.conversation_id)
            return Place(body.conversation_id, None if body.begins_anew else conversation["last_message_id"])
        message = await session.one(
            "SELECT m.conversation_id, m.role FROM read_models.messages m"
            " JOIN read_models.conversations c ON c.id = m.conversation_id"
            " WHERE m.id = :id AND NOT c.deleted"
            " AND (:sees_all OR c.user_id IS NOT DISTINCT FROM CAST(:user_id AS uuid))",
            id=body.parent_message_id,
            **_eyes(principal),
        )
    if message is None:
        raise NoSuch("message")
    if body.conversation_id not in (None, message["conversation_id"]):
        raise NoSuch("message")
    return Place(message["conversation_id"], body.parent_message_id)


async def rename(database: Database, principal: Principal, conversation_id: UUID, title: str) -> UUID:
    """Decide the new title. Returns the event's id. Raises NoSuch, DatabaseUnavailable."""
    content = TitleContent(title=title)
    async with database.tenant(principal.tenant_id) as session:
        await _conversation(session, principal, conversation_id)
        return await _decided(
            session,
            principal,
            RenameConversation(conversation_id=conversation_id, content=content),
            ConversationRenamed(conversation_id=conversation_id, content=content),
        )


async def delete(
    database: Database, principal: Principal, conversation_id: UUID
) -> tuple[UUID, list[CancelGeneration]]:
    """Decide that the conversation is gone. Returns the event's id and the cancels of what still runs in it.

    Raises NoSuch, DatabaseUnavailable.
    """
    async with database.tenant(principal.tenant_id) as session:
        await _conversation(session, principal, conversation_id)
        running = await session.all(
            "SELECT id, conversation_id, user_id, key_id, model, pool FROM read_models.generations"
            " WHERE conversation_id = :id AND status IN ('queued', 'running') AND pool IS NOT NULL",
            id=conversation_id,
        )
        event_id = await _decided(
            session,
            principal,
            DeleteConversation(conversation_id=conversation_id),
            ConversationDeleted(conversation_id=conversation_id),
        )
    return event_id, [_cancel(row) for row in running]


async def cancel_of(database: Database, principal: Principal, generation_id: UUID) -> CancelGeneration:
    """The command that cancels this generation. Raises NoSuch, DatabaseUnavailable."""
    async with database.tenant(principal.tenant_id) as session:
        row = await session.one(
            "SELECT id, conversation_id, user_id, key_id, model, pool FROM read_models.generations"
            " WHERE id = :id AND pool IS NOT NULL"
            " AND (:sees_all OR user_id = CAST(:user_id AS uuid)"
            " OR (user_id IS NULL AND CAST(:user_id AS uuid) IS NULL AND key_id = :key_id))",
            id=generation_id,
            key_id=principal.key_id,
            **_eyes(principal),
        )
    if row is None:
        raise NoSuch("generation")
    return _cancel(row)


async def recorded(database: Database, tenant_id: UUID, event_id: UUID) -> bool:
    """Whether the projections have this event. Raises DatabaseUnavailable."""
    async with database.tenant(tenant_id) as session:
        return await session.one("SELECT 1 FROM read_models.event_log WHERE id = :id", id=event_id) is not None


async def _conversation(session: TenantSession, principal: Principal, conversation_id: UUID) -> Row:
    row = await session.one(
        "SELECT last_message_id FROM read_models.conversations WHERE id = :id AND NOT deleted"
        " AND (:sees_all OR user_id IS NOT DISTINCT FROM CAST(:user_id AS uuid))",
        id=conversation_id,
        **_eyes(principal),
    )
    if row is None:
        raise NoSuch("conversation")
    return row


def _eyes(principal: Principal) -> Row:
    # A member sees what is their own: of their user, or of no user where the key is no person's.
    return {"sees_all": principal.role == "admin", "user_id": principal.user_id}


def _cancel(row: Row) -> CancelGeneration:
    return CancelGeneration(
        generation_id=row["id"],
        conversation_id=row["conversation_id"],
        user_id=row["user_id"],
        key_id=row["key_id"],
        model=row["model"],
        pool=row["pool"],
    )


async def _decided(session: TenantSession, principal: Principal, command: Payload, event: Payload) -> UUID:
    asked = Envelope.first(command, id=new_id(), source=SOURCE, tenant_id=principal.tenant_id, actor=principal.actor)
    decided = asked.caused(event, id=new_id(), source=SOURCE)
    await outbox.add(session, decided)
    return decided.id
