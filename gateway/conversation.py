"""Which conversation a call goes on with."""

from __future__ import annotations

from collections.abc import MutableMapping
from uuid import UUID

from command_api.prompt import PromptBody
from gateway.problems import invalid


def named(header: UUID | None, metadata: MutableMapping[str, str]) -> UUID | None:
    """The one that the header names, or else ``metadata.conversation_id``, which is taken out. Raises Problem."""
    found = metadata.pop("conversation_id", None)
    if header is not None or found is None:
        return header
    try:
        return UUID(found)
    except ValueError:
        raise invalid("metadata.conversation_id", "is no id of a conversation") from None


def going_on(prompt: PromptBody, conversation_id: UUID | None) -> PromptBody:
    """``prompt`` in that conversation, with only what was not said there yet: the messages after the last of the
    assistant's."""
    if conversation_id is None:
        return prompt
    said = max((at for at, one in enumerate(prompt.messages, 1) if one.role == "assistant"), default=0)
    return prompt.model_copy(update={"conversation_id": conversation_id, "messages": prompt.messages[said:]})
