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
from event_schemas.payload import Payload, PersonaRef

SOURCE = "/parley/command_api"


class NoSuch(LookupError):
    """Not there, not yet projected, or somebody else's. ``args[0]`` names what: conversation, message, generation."""


class ContentNotKept(Exception):
    """The tenant keeps no content, so that nothing can be named or forked."""


class TakesNoPrompts(Exception):
    """The conversation is suspended, or was ended. ``args[0]`` is its state."""


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
    persona: PersonaRef | None = None
    """What was asked as where it goes on."""
    origin_erased: bool = False
    """It is a fork, and of what was said before it nothing can be read."""
    wants_title: bool = False
    """Nothing was said there yet, and nobody gave it a title."""


async def place(database: Database, principal: Principal, body: PromptBody) -> Place:
    """Where ``body`` goes. A prompt that names nothing begins a conversation, and asks the database nothing.

    Raises NoSuch, TakesNoPrompts, DatabaseUnavailable.
    """
    if body.begins_a_conversation:
        return Place(new_id(), None, principal.user_id, wants_title=True)
    async with database.tenant(principal.tenant_id) as session:
        conversation = None
        if body.conversation_id is not None:
            conversation = await conversation_of(session, principal, body.conversation_id)
            _check_state(conversation["state"])
        if body.parent_message_id is None:
            assert conversation is not None, "it names one of them"
            parent = None if body.begins_anew else conversation["last_message_id"]
            said = 0 if parent is None else conversation["said"]
            return Place(
                conversation["id"],
                parent,
                conversation["user_id"],
                conversation["data_key"],
                said,
                persona_of(conversation),
                conversation["origin_erased"],
                conversation["wants_title"],
            )
        message = await session.one(
            f"SELECT m.conversation_id, c.user_id, {_STATE}, {_DATA_KEY}, {_said('m.id')}, {_ORIGIN_ERASED},"  # noqa: S608
            " g.persona_id, g.persona, g.persona_version FROM read_models.messages m"
            # An answer may be known before its prompt, which says what was asked as.
            " JOIN read_models.generations g ON g.id = m.generation_id AND g.created_at IS NOT NULL"
            f" JOIN read_models.conversations c ON c.id = m.conversation_id {_KEPT}"
            " WHERE m.id = :id AND NOT c.deleted"
            " AND (:sees_all OR c.user_id IS NOT DISTINCT FROM CAST(:user_id AS uuid))",
            id=body.parent_message_id,
            **_eyes(principal),
        )
        if message is None:
            raise NoSuch("message")
        if conversation is None:
            _check_state(message["state"])
            conversation = {**message, "id": message["conversation_id"]}
        elif conversation["id"] != message["conversation_id"] and not await has_message(
            session, conversation["id"], body.parent_message_id
        ):
            raise NoSuch("message")
    return Place(
        conversation["id"],
        body.parent_message_id,
        conversation["user_id"],
        conversation["data_key"],
        message["said"],
        persona_of(message),
        conversation["origin_erased"],
    )


async def has_message(session: TenantSession, conversation_id: UUID, message_id: UUID) -> bool:
    """Whether it stands there, or before the message that the conversation was forked at."""
    return await session.one(_HAS, conversation_id=conversation_id, id=message_id) is not None


async def persona_at(session: TenantSession, message_id: UUID) -> PersonaRef | None:
    """What was asked as where this was said. Raises NoSuch."""
    row = await session.one(
        "SELECT g.persona_id, g.persona, g.persona_version FROM read_models.messages m"
        # An answer may be known before its prompt, which says what was asked as.
        " JOIN read_models.generations g ON g.id = m.generation_id AND g.created_at IS NOT NULL WHERE m.id = :id",
        id=message_id,
    )
    if row is None:
        raise NoSuch("message")
    return persona_of(row)


def _check_state(state: str) -> None:
    if state != "active":
        raise TakesNoPrompts(state)


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
        for table in ("data_keys", "conversation_states"):
            await session.execute(f"DELETE FROM control.{table} WHERE conversation_id = :id", id=conversation_id)  # noqa: S608
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
            "SELECT id, conversation_id, user_id, key_id, model, pool, purpose, persona_id, persona, persona_version"
            " FROM read_models.generations"
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
        "SELECT id, conversation_id, user_id, key_id, model, pool, purpose, persona_id, persona, persona_version"
        " FROM read_models.generations"
        " WHERE conversation_id = ANY(CAST(:ids AS uuid[])) AND status IN ('queued', 'running') AND pool IS NOT NULL",
        ids=conversation_ids,
    )
    return [_cancel(row) for row in running]


async def conversation_of(session: TenantSession, principal: Principal, conversation_id: UUID) -> Row:
    """Its row. Raises NoSuch."""
    row = await session.one(
        "SELECT c.id, c.user_id, c.last_message_id, c.forked_from, c.persona_id, c.persona, c.persona_version,"  # noqa: S608
        " c.begun AND c.first_generation_id IS NULL AND c.title IS NULL AS wants_title,"
        f" t.keeps_content, {_STATE}, {_DATA_KEY}, {_said('c.last_message_id')}, {_ORIGIN_ERASED}"
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
_STATE = (
    "coalesce((SELECT s.state FROM control.conversation_states s"
    " WHERE s.tenant_id = c.tenant_id AND s.conversation_id = c.id), 'active') AS state"
)
_ORIGIN_ERASED = (
    "EXISTS (WITH RECURSIVE origins AS ("
    "SELECT o.id, o.forked_from, o.erased OR o.deleted AS gone FROM read_models.conversations o"
    " WHERE o.tenant_id = c.tenant_id AND o.id = c.forked_from"
    " UNION ALL SELECT o.id, o.forked_from, o.erased OR o.deleted FROM origins f"
    " JOIN read_models.conversations o ON o.tenant_id = c.tenant_id AND o.id = f.forked_from)"
    " SELECT 1 FROM origins WHERE gone) AS origin_erased"
)
_HAS = """
WITH RECURSIVE before AS (
  SELECT m.id, m.parent_message_id FROM read_models.conversations c
  JOIN read_models.messages m ON m.tenant_id = c.tenant_id AND m.id = c.forked_at_message
  WHERE c.id = :conversation_id
  UNION
  SELECT m.id, m.parent_message_id FROM before b JOIN read_models.messages m ON m.id = b.parent_message_id)
SELECT 1 FROM read_models.messages WHERE id = :id AND conversation_id = :conversation_id
UNION ALL SELECT 1 FROM before WHERE id = :id
"""
_KEPT = (
    "JOIN control.tenants t ON t.tenant_id = c.tenant_id LEFT JOIN control.data_keys k"
    " ON k.tenant_id = c.tenant_id AND k.conversation_id = c.id AND k.generation_id IS NULL"
)


def _eyes(principal: Principal) -> Row:
    # A member sees what is their own: of their user, or of no user where the key is no person's.
    return {"sees_all": principal.may("conversations.all"), "user_id": principal.user_id}


def persona_of(row: Row) -> PersonaRef | None:
    """What a row of conversations or generations was asked as."""
    if row["persona_id"] is None:
        return None
    return PersonaRef(persona_id=row["persona_id"], name=row["persona"], version=row["persona_version"])


def _cancel(row: Row) -> CancelGeneration:
    return CancelGeneration(
        generation_id=row["id"],
        conversation_id=row["conversation_id"],
        user_id=row["user_id"],
        key_id=row["key_id"],
        model=row["model"],
        pool=row["pool"],
        persona=persona_of(row),
        purpose=row["purpose"],
    )


async def decided(session: TenantSession, principal: Principal, command: Payload, event: Payload) -> UUID:
    """Add ``event``, which ``principal`` asked for by ``command``, to the transaction. Returns its id."""
    asked = Envelope.first(command, id=new_id(), source=SOURCE, tenant_id=principal.tenant_id, actor=principal.actor)
    decided = asked.caused(event, id=new_id(), source=SOURCE)
    await outbox.add(session, decided)
    return decided.id
