"""What people wrote, taken away again: the facts about it stay."""

from __future__ import annotations

from typing import ClassVar, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from event_schemas.payload import Payload

EraseReason = Literal["asked", "user_erased", "retention"]


class _OfConversation(Payload):
    conversation_id: UUID
    reason: EraseReason = Field(description="`retention`: its tenant keeps content for so many days only")

    def subject(self) -> str:
        return f"conversation:{self.conversation_id}"


class EraseContent(_OfConversation):
    wire_name: ClassVar[str] = "content.erase.v1"


class ContentErased(_OfConversation):
    """What was written in a conversation, its title too, can be read by nobody any more. The conversation stays, and
    may go on."""

    wire_name: ClassVar[str] = "content.erased.v1"


class _OfUser(Payload):
    user_id: UUID

    def subject(self) -> str:
        return f"user:{self.user_id}"


class EraseUser(_OfUser):
    wire_name: ClassVar[str] = "user.erase.v1"


class UserErased(_OfUser):
    """All that was written in a user's conversations was erased, each by an event of its own."""

    wire_name: ClassVar[str] = "user.erased.v1"

    conversations: int = Field(ge=0, description="in how many there was something to erase")


class ContentPolicy(BaseModel):
    """For how long what is written is kept."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    keeps_content: bool = Field(default=True, description="false: what is written is gone when its generation ends")
    content_days: int | None = Field(
        default=None,
        ge=1,
        le=36_500,
        description="days after which a conversation nobody writes in is erased; none: never",
    )


class _OfTenant(Payload):
    tenant_id: UUID
    policy: ContentPolicy

    def subject(self) -> str:
        return f"tenant:{self.tenant_id}"


class SetContentPolicy(_OfTenant):
    wire_name: ClassVar[str] = "tenant.set_content_policy.v1"


class ContentPolicySet(_OfTenant):
    """Holds for what is written from now on; the days hold for what was written before, too."""

    wire_name: ClassVar[str] = "tenant.content_policy_set.v1"
