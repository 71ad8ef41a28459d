"""What a claimed prompt and its conversation hold, opened by their data keys."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from uuid import UUID

from backplane.ports.key_wrapping import CannotUnwrap, WrappingUnavailable
from backplane.security.content import CannotRead, ContentErased, DataKey, DataKeys, opened
from event_schemas.generation import PromptContent, SubmitPrompt
from workers.claims import WrappedKeys
from workers.inference.port import BackendUnavailable, RequestRefused

_DEADLINE_S = 30.0
_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Opened:
    """``key`` seals what is said; ``conversation`` opens what was said before, None where nothing can be."""

    content: PromptContent
    key: DataKey
    conversation: DataKey | None


async def open_prompt(data_keys: DataKeys, tenant_id: UUID, prompt: SubmitPrompt, wrapped: WrappedKeys) -> Opened:
    """Raises RequestRefused where it was erased or cannot be read, BackendUnavailable where the keys cannot be had."""
    if wrapped.prompt is None:
        raise _erased()
    key = await _unwrapped(data_keys, tenant_id, prompt.conversation_id, wrapped.prompt)
    conversation: DataKey | None = key
    if not prompt.keeps_content:
        older = wrapped.conversation
        conversation = None if older is None else await _unwrapped(data_keys, tenant_id, prompt.conversation_id, older)
    try:
        return Opened(opened(prompt.content, key, PromptContent), key, conversation)
    except ContentErased:
        raise _erased() from None
    except CannotRead as error:
        raise RequestRefused("content_unreadable", str(error)) from None


async def _unwrapped(data_keys: DataKeys, tenant_id: UUID, conversation_id: UUID, wrapped: bytes) -> DataKey:
    deadline = time.monotonic() + _DEADLINE_S
    while True:
        try:
            return await data_keys.unwrap(wrapped, tenant_id, conversation_id)
        except CannotUnwrap as error:
            raise BackendUnavailable("data_key_unusable", f"its data key cannot be opened: {error}") from None
        except WrappingUnavailable as error:
            if time.monotonic() > deadline:
                raise BackendUnavailable("data_key_unavailable", str(error)) from error
            await asyncio.sleep(_POLL_S)


def _erased() -> RequestRefused:
    return RequestRefused("content_erased", "what was written in its conversation was erased before it was answered")
