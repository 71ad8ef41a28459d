"""What its owner does to a conversation's life: begin it, fork it at a message, let it rest, go on with it, end it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from backplane.ports.database import Database, Row, TenantSession
from backplane.ports.identifiers import new_id
from backplane.security.principal import Principal
from backplane.settings import Settings
from command_api import outbox
from command_api.admission import Refused
from command_api.allowance import Allowance, Asked
from command_api.content_keys import ContentKeys
from command_api.conversations import SOURCE, ContentNotKept, NoSuch, conversation_of, decided, has_message, persona_at
from event_schemas.background import summary_prompt, summary_tokens
from event_schemas.control_plane import TitleContent
from event_schemas.conversations import (
    BeginConversation,
    ConversationBegun,
    ConversationEnded,
    ConversationForked,
    ConversationResumed,
    ConversationState,
    ConversationSuspended,
    EndConversation,
    ForkConversation,
    ResumeConversation,
    SuspendConversation,
)
from event_schemas.envelope import Envelope
from event_schemas.generation import Parameters, PromptContent, SubmitPrompt


class HasEnded(Exception):
    """The conversation was ended, for good. ``args[0]`` is its id."""


@dataclass(frozen=True, slots=True)
class Begun:
    event_id: UUID
    conversation_id: UUID


@dataclass(frozen=True, slots=True)
class Forked:
    event_id: UUID
    conversation_id: UUID
    message_id: UUID


class Ended(NamedTuple):
    event_id: UUID
    asks_summary: bool
    """Whether a summary will be there after a while."""


class ConversationLife:
    """Everything here raises NoSuch, DatabaseUnavailable, WrappingUnavailable, CannotUnwrap."""

    def __init__(self, database: Database, keys: ContentKeys, allowance: Allowance, settings: Settings) -> None:
        self._database = database
        self._keys = keys
        self._allowance = allowance
        self._settings = settings

    async def begin(self, principal: Principal, title: str | None) -> Begun:
        """A conversation in which nothing was said yet. Raises ContentNotKept where a title cannot be kept."""
        conversation_id, sealed = new_id(), None
        async with self._database.tenant(principal.tenant_id) as session:
            if title is not None:
                # What seals nothing needs no key: the first prompt makes one as it does where it begins.
                new = await self._keys.new(principal.tenant_id, conversation_id, new_id(), principal.user_id)
                sealing = await self._keys.add_within(session, new)
                if not sealing.keeps_content:
                    raise ContentNotKept
                sealed = sealing.key.seal(TitleContent(title=title))
            facts = {"conversation_id": conversation_id, "user_id": principal.user_id, "title": sealed}
            event_id = await decided(session, principal, BeginConversation(**facts), ConversationBegun(**facts))
        return Begun(event_id, conversation_id)

    async def fork(
        self, principal: Principal, conversation_id: UUID, message_id: UUID | None, title: str | None
    ) -> Forked:
        """A new conversation that goes on from this message; None: from the newest one. Raises ContentNotKept."""
        async with self._database.tenant(principal.tenant_id) as session:
            conversation = await conversation_of(session, principal, conversation_id)
            if not conversation["keeps_content"]:
                raise ContentNotKept
            at = message_id or conversation["last_message_id"]
            if at is None or not await has_message(session, conversation_id, at):
                raise NoSuch("message")
            new = await self._keys.new(principal.tenant_id, new_id(), new_id(), conversation["user_id"])
            sealing = await self._keys.add_within(session, new)
            facts = {
                "conversation_id": new.conversation_id,
                "from_conversation_id": conversation_id,
                "message_id": at,
                "user_id": conversation["user_id"],
                # Not that of the first one, whose words its own key alone may keep.
                "title": None if title is None else sealing.key.seal(TitleContent(title=title)),
                "persona": await persona_at(session, at),
            }
            event_id = await decided(session, principal, ForkConversation(**facts), ConversationForked(**facts))
        return Forked(event_id, new.conversation_id, at)

    async def suspend(self, principal: Principal, conversation_id: UUID) -> UUID | None:
        """It takes no prompts until it is resumed. Returns the event's id; None: it rests already. Raises HasEnded."""
        async with self._database.tenant(principal.tenant_id) as session:
            state = await _state_of(session, principal, conversation_id)
            if state == "suspended":
                return None
            await _set(session, conversation_id, "suspended")
            command, event = SuspendConversation, ConversationSuspended
            about = {"conversation_id": conversation_id}
            return await decided(session, principal, command(**about), event(**about))

    async def resume(self, principal: Principal, conversation_ids: Sequence[UUID]) -> UUID | None:
        """All of them take prompts again, or none. Returns the newest event's id; None: all did. Raises HasEnded."""
        event_id = None
        async with self._database.tenant(principal.tenant_id) as session:
            for conversation_id in dict.fromkeys(conversation_ids):
                if await _state_of(session, principal, conversation_id) == "suspended":
                    await _set(session, conversation_id, "active")
                    command, event = ResumeConversation, ConversationResumed
                    about = {"conversation_id": conversation_id}
                    event_id = await decided(session, principal, command(**about), event(**about))
        return event_id

    async def end(self, principal: Principal, conversation_id: UUID) -> Ended | None:
        """It takes no prompts any more, and its model is asked for a summary where the tenant's limits allow that.

        None: it had ended.
        """
        async with self._database.tenant(principal.tenant_id) as session:
            conversation = await conversation_of(session, principal, conversation_id)
            if conversation["state"] == "ended":
                return None
            await _set(session, conversation_id, "ended")
            about = {"conversation_id": conversation_id}
            event_id = await decided(session, principal, EndConversation(**about), ConversationEnded(**about))
            last = await session.one(
                "SELECT pool, coalesce(asked_model, model) AS model FROM read_models.generations WHERE id ="
                " (SELECT generation_id FROM read_models.messages WHERE id = :id) AND pool IS NOT NULL",
                id=conversation["last_message_id"],
            )
            # A fork's would keep words of the conversation that it came from under a key of its own.
            own = conversation["forked_from"] is None and conversation["data_key"] is not None
            summary = None
            if own and last is not None and last["pool"] in self._settings.pools:
                summary = await self._summary(principal, conversation, last["pool"], last["model"])
                if summary is not None:
                    asked = Envelope.first(
                        summary, id=new_id(), source=SOURCE, tenant_id=principal.tenant_id, actor=principal.actor
                    )
                    await outbox.add(session, asked)
        return Ended(event_id, asks_summary=summary is not None)

    async def _summary(self, principal: Principal, conversation: Row, pool: str, model: str) -> SubmitPrompt | None:
        key = await self._keys.of_conversation(principal.tenant_id, conversation["id"], conversation["data_key"])
        empty = PromptContent(messages=())
        whole = SubmitPrompt(
            generation_id=new_id(),
            conversation_id=conversation["id"],
            parent_message_id=conversation["last_message_id"],
            input_message_ids=(),
            roles=(),
            input_tokens=0,
            user_id=conversation["user_id"],
            key_id=principal.key_id,
            model=model,
            pool=pool,
            parameters=Parameters(),
            content=key.seal(empty),
            share=principal.share,
        )
        tokens = summary_tokens(self._settings.pools[pool].context_window)
        asked = Asked(whole.generation_id, whole.user_id, whole.key_id, ((pool, model),), tokens)
        try:
            said = conversation["said"]
            estimate = await self._allowance.estimated(principal.tenant_id, asked, empty, said_before=said)
        except Refused:
            return None
        return summary_prompt(whole, conversation["last_message_id"], tokens, estimate.reserved, key.seal)


async def _state_of(session: TenantSession, principal: Principal, conversation_id: UUID) -> ConversationState:
    """Raises NoSuch, HasEnded."""
    state: ConversationState = (await conversation_of(session, principal, conversation_id))["state"]
    if state == "ended":
        raise HasEnded(conversation_id)
    return state


async def _set(session: TenantSession, conversation_id: UUID, state: ConversationState) -> None:
    if state == "active":
        await session.execute("DELETE FROM control.conversation_states WHERE conversation_id = :id", id=conversation_id)
        return
    await session.execute(
        "INSERT INTO control.conversation_states (tenant_id, conversation_id, state)"
        " VALUES (:tenant_id, :id, :state)"
        " ON CONFLICT (tenant_id, conversation_id) DO UPDATE SET state = :state, changed_at = now()",
        tenant_id=session.tenant_id,
        id=conversation_id,
        state=state,
    )
