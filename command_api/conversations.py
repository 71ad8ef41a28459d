"""Where a prompt goes in a conversation, and what its owner does to a conversation as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from backplane.ports.database import Database, Row, TenantSession
from backplane.ports.identifiers import new_id
from backplane.security.content import DataKey
from backplane.security.principal import Principal
from command_api import outbox
from command_api.content_keys import ContentKeys
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


class ContentNotKept(Exception):
    """The tenant keeps no content, so that nothing can be named."""


@dataclass(frozen=True, slots=True)
class Place:
    conversation_id: UUID
    parent_message_id: UUID | None
    user_id: UUID | None
    """Whose conversation it is."""
    data_key: bytes | None = None
    """The conversation's, wrapped; None where a prompt needs a new one."""
    tokens: int = 0
    """Of what was said there before, as far as it is known."""


async def place(database: Database, principal: Principal, body: PromptBody) -> Place:
    """Where ``body`` goes. A prompt that names nothing begins a conversation, and asks the database nothing.

    Raises NoSuch, DatabaseUnavailable.
    """
    if body.begins_a_conversation:
        return Place(new_id(), None, principal.user_id)
    async with database.tenant(principal.tenant_id) as session:
        if body.parent_message_id is None:
            assert body.conversation_id is not None
            conversation = await conversation_of(session, principal, body.conversation_id)
            parent = None if body.begins_anew else conversation["last_message_id"]
            said = 0 if parent is None else conversation["said"]
            return Place(body.conversation_id, parent, conversation["user_id"], conversation["data_key"], said)
        message = await session.one(
            f"SELECT m.conversation_id, c.user_id, {_DATA_KEY}, {_said('m.id')} FROM read_models.messages m"  # noqa: S608
            f" JOIN read_models.conversations c ON c.id = m.conversation_id {_KEPT}"
            " WHERE m.id = :id AND NOT c.deleted"
            " AND (:sees_all OR c.user_id IS NOT DISTINCT FROM CAST(:user_id AS uuid))",
            id=body.parent_message_id,
            **_eyes(principal),
        )
    if message is None:
        raise NoSuch("message")
    if body.conversation_id not in (None, message["conversation_id"]):
        raise NoSuch("message")
    return Place(
        message["conversation_id"], body.parent_message_id, message["user_id"], message["data_key"], message["said"]
    )


async def rename(
    database: Database, keys: ContentKeys, principal: Principal, conversation_id: UUID, title: str
) -> UUID:
    """Decide the new title. Returns the event's id.

    Raises NoSuch, ContentNotKept, DatabaseUnavailable, WrappingUnavailable, CannotUnwrap.
    """
    async with database.tenant(principal.tenant_id) as session:
        conversation = await conversation_of(session, principal, conversation_id)
        key = await _key_of(session, keys, principal, conversation)
        content = key.seal(TitleContent(title=title))
        return await decided(
            session,
            principal,
            RenameConversation(conversation_id=conversation_id, content=content),
            ConversationRenamed(conversation_id=conversation_id, content=content),
        )


async def delete(
    database: Database, principal: Principal, conversation_id: UUID
) -> tuple[UUID, list[CancelGeneration]]:
    """Decide that the conversation is gone, and what was written in it with its keys. Returns the event's id and the
    cancels of what still runs in it.

    Raises NoSuch, DatabaseUnavailable.
    """
    async with database.tenant(principal.tenant_id) as session:
        await conversation_of(session, principal, conversation_id)
        await session.execute("DELETE FROM control.data_keys WHERE conversation_id = :id", id=conversation_id)
        running = await running_in(session, [conversation_id])
        event_id = await decided(
            session,
            principal,
            DeleteConversation(conversation_id=conversation_id),
            ConversationDeleted(conversation_id=conversation_id),
        )
    return event_id, running


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


async def running_in(session: TenantSession, conversation_ids: list[UUID]) -> list[CancelGeneration]:
    """The cancels of what still runs in these conversations, or waits to."""
    running = await session.all(
        "SELECT id, conversation_id, user_id, key_id, model, pool FROM read_models.generations"
        " WHERE conversation_id = ANY(CAST(:ids AS uuid[])) AND status IN ('queued', 'running') AND pool IS NOT NULL",
        ids=conversation_ids,
    )
    return [_cancel(row) for row in running]


async def conversation_of(session: TenantSession, principal: Principal, conversation_id: UUID) -> Row:
    """Its row. Raises NoSuch."""
    row = await session.one(
        f"SELECT c.id, c.user_id, c.last_message_id, t.keeps_content, {_DATA_KEY}, {_said('c.last_message_id')}"  # noqa: S608
        f" FROM read_models.conversations c {_KEPT} WHERE c.id = :id AND NOT c.deleted"
        " AND (:sees_all OR c.user_id IS NOT DISTINCT FROM CAST(:user_id AS uuid))",
        id=conversation_id,
        **_eyes(principal),
    )
    if row is None:
        raise NoSuch("conversation")
    return row


async def _key_of(session: TenantSession, keys: ContentKeys, principal: Principal, conversation: Row) -> DataKey:
    if not conversation["keeps_content"]:
        raise ContentNotKept
    if conversation["data_key"] is not None:
        return await keys.of_conversation(principal.tenant_id, conversation["id"], conversation["data_key"])
    # What was written there was erased; from now on something is.
    new = await keys.new(principal.tenant_id, conversation["id"], new_id(), conversation["user_id"])
    sealing = await keys.add_within(session, new)
    if not sealing.keeps_content:
        raise ContentNotKept
    return sealing.key


def _said(message_id: str) -> str:
    """What it took to say this message, and itself: all that its conversation has by then."""
    return (
        "coalesce((SELECT coalesce(g.input_tokens + g.output_tokens, g.reserved_tokens)"  # noqa: S608
        f" FROM read_models.generations g WHERE g.tenant_id = c.tenant_id AND g.id = {message_id}), 0) AS said"
    )


# Not that of a conversation whose tenant has come to keep no content: each of its prompts needs one of its own.
_DATA_KEY = "CASE WHEN t.keeps_content THEN k.wrapped END AS data_key"
_KEPT = (
    "JOIN control.tenants t ON t.tenant_id = c.tenant_id LEFT JOIN control.data_keys k"
    " ON k.tenant_id = c.tenant_id AND k.conversation_id = c.id AND k.generation_id IS NULL"
)


def _eyes(principal: Principal) -> Row:
    # A member sees what is their own: of their user, or of no user where the key is no person's.
    return {"sees_all": principal.may("conversations.all"), "user_id": principal.user_id}


def _cancel(row: Row) -> CancelGeneration:
    return CancelGeneration(
        generation_id=row["id"],
        conversation_id=row["conversation_id"],
        user_id=row["user_id"],
        key_id=row["key_id"],
        model=row["model"],
        pool=row["pool"],
    )


async def decided(session: TenantSession, principal: Principal, command: Payload, event: Payload) -> UUID:
    """Add ``event``, which ``principal`` asked for by ``command``, to the transaction. Returns its id."""
    asked = Envelope.first(command, id=new_id(), source=SOURCE, tenant_id=principal.tenant_id, actor=principal.actor)
    decided = asked.caused(event, id=new_id(), source=SOURCE)
    await outbox.add(session, decided)
    return decided.id
