"""Chat tools: apps of a tenant's own in Slack, Discord or Microsoft Teams, whose users ask there.

No secret of theirs is in any command or event.
"""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from pydantic import Field

from event_schemas.payload import Payload


class _AboutChatTool(Payload):
    chat_tool_id: UUID

    def subject(self) -> str:
        return f"chat_tool:{self.chat_tool_id}"


class _DescribesChatTool(_AboutChatTool):
    kind: str = Field(description="stable: `slack`, `discord` or `teams`")
    name: str = Field(description="for people")
    persona: str | None = Field(description="what its users ask as; none: as none")
    model: str | None = Field(description="which model they ask; none: the persona's, or the default")
    user_id: UUID | None = Field(description="in whose name they ask; none: that of a key that is no person's")
    key_id: UUID = Field(description="by whose leave they ask")


class AddChatTool(_DescribesChatTool):
    wire_name: ClassVar[str] = "chat_tool.add.v1"


class ChatToolAdded(_DescribesChatTool):
    """From now on its users may ask."""

    wire_name: ClassVar[str] = "chat_tool.added.v1"


class SetChatToolSecrets(_AboutChatTool):
    wire_name: ClassVar[str] = "chat_tool.set_secrets.v1"


class ChatToolSecretsSet(_AboutChatTool):
    """What proves that a request is the tool's own was replaced."""

    wire_name: ClassVar[str] = "chat_tool.secrets_set.v1"


class RemoveChatTool(_AboutChatTool):
    wire_name: ClassVar[str] = "chat_tool.remove.v1"


class ChatToolRemoved(_AboutChatTool):
    """Nobody asks through it any more, and its secrets are not kept."""

    wire_name: ClassVar[str] = "chat_tool.removed.v1"
