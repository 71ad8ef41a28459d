"""What becomes of a conversation as a whole: forks, summaries, titles, and its rest and end."""

from __future__ import annotations

from typing import ClassVar, Literal
from uuid import UUID

from pydantic import Field

from event_schemas.payload import Content, Payload, PersonaRef, Written

ConversationState = Literal["active", "suspended", "ended"]


class _OfConversation(Payload):
    conversation_id: UUID

    def subject(self) -> str:
        return f"conversation:{self.conversation_id}"


class SummaryContent(Content):
    summary: str


class _Beginning(_OfConversation):
    user_id: UUID | None = Field(description="whose it is")
    title: Written | None = Field(default=None, description="a TitleContent, given by a person")


class BeginConversation(_Beginning):
    wire_name: ClassVar[str] = "conversation.begin.v1"


class ConversationBegun(_Beginning):
    """A conversation in which nothing was said yet. One that a prompt begins has no such event."""

    wire_name: ClassVar[str] = "conversation.begun.v1"


class _Fork(_OfConversation):
    from_conversation_id: UUID
    message_id: UUID = Field(description="the last one that both have")
    user_id: UUID | None = Field(description="whose the conversation is that was forked, and the new one")
    title: Written | None = Field(default=None, description="a TitleContent")
    persona: PersonaRef | None = Field(default=None, description="what was asked as where it goes on")


class ForkConversation(_Fork):
    wire_name: ClassVar[str] = "conversation.fork.v1"


class ConversationForked(_Fork):
    """A conversation that goes on from a message of another one, where what was said until then stays."""

    wire_name: ClassVar[str] = "conversation.forked.v1"


class SuspendConversation(_OfConversation):
    wire_name: ClassVar[str] = "conversation.suspend.v1"


class ConversationSuspended(_OfConversation):
    """It takes no prompts until it is resumed."""

    wire_name: ClassVar[str] = "conversation.suspended.v1"


class ResumeConversation(_OfConversation):
    wire_name: ClassVar[str] = "conversation.resume.v1"


class ConversationResumed(_OfConversation):
    wire_name: ClassVar[str] = "conversation.resumed.v1"


class EndConversation(_OfConversation):
    wire_name: ClassVar[str] = "conversation.end.v1"


class ConversationEnded(_OfConversation):
    """It takes no prompts any more."""

    wire_name: ClassVar[str] = "conversation.ended.v1"


class ConversationTitled(_OfConversation):
    """Its model made a title. What a person calls it goes before that."""

    wire_name: ClassVar[str] = "conversation.titled.v1"

    generation_id: UUID = Field(description="that made it")
    content: Written = Field(description="a TitleContent")


class ConversationSummarised(_OfConversation):
    """Its model made a summary of what was said up to a message."""

    wire_name: ClassVar[str] = "conversation.summarised.v1"

    generation_id: UUID = Field(description="that made it")
    up_to_message_id: UUID = Field(description="the newest message that it stands for")
    content: Written = Field(description="a SummaryContent")
