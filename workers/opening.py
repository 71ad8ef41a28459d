"""What a claimed prompt and its conversation hold, opened by their data keys."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from backplane.security.content import CannotRead, ContentErased, DataKey, DataKeys, opened
from event_schemas.chat import ChatMessage
from event_schemas.generation import PromptContent, SubmitPrompt
from workers.claims import WrappedKeys
from workers.inference.port import InferenceRequest, RequestRefused
from workers.keyring import Keyring, unwrapped


@dataclass(frozen=True, slots=True)
class Opened:
    """``key`` seals what is said; ``keys`` open what was said before."""

    content: PromptContent
    key: DataKey
    keys: Keyring

    def request(self, prompt: SubmitPrompt, attempt: int, messages: tuple[ChatMessage, ...]) -> InferenceRequest:
        """What ``attempt`` asks a model: ``messages``, as ``prompt`` wants them answered."""
        return InferenceRequest(
            generation_id=prompt.generation_id,
            attempt=attempt,
            model=prompt.model,
            messages=messages,
            parameters=prompt.parameters,
            metadata=self.content.metadata,
            tools=self.content.tools,
            response_format=self.content.response_format,
            stop=self.content.stop,
        )


async def open_prompt(data_keys: DataKeys, tenant_id: UUID, prompt: SubmitPrompt, wrapped: WrappedKeys) -> Opened:
    """Raises RequestRefused where it was erased or cannot be read, BackendUnavailable where the keys cannot be had."""
    if wrapped.prompt is None:
        raise _erased()
    key = await unwrapped(data_keys, tenant_id, prompt.conversation_id, wrapped.prompt)
    conversation: DataKey | None = key
    if not prompt.keeps_content:
        older = wrapped.conversation
        conversation = None if older is None else await unwrapped(data_keys, tenant_id, prompt.conversation_id, older)
    keys = Keyring(data_keys, tenant_id, {prompt.conversation_id: conversation})
    try:
        return Opened(opened(prompt.content, key, PromptContent), key, keys)
    except ContentErased:
        raise _erased() from None
    except CannotRead as error:
        raise RequestRefused("content_unreadable", str(error)) from None


def _erased() -> RequestRefused:
    return RequestRefused("content_erased", "what was written in its conversation was erased before it was answered")
