"""Prompts under data keys, as the command API stores and publishes them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

from backplane.security.content import DataKey, opened
from event_schemas.chat import AnswerContent
from event_schemas.generation import PromptContent, SubmitPrompt, Terminal, TokensContent, TokensEmitted
from event_schemas.payload import Plain
from tests.data_keys import DATA_KEYS


class SealedPrompts:
    """``execute`` runs a statement as Postgres' owner."""

    def __init__(self, execute: Callable[..., Awaitable[object]]) -> None:
        self._execute = execute
        self._kept: dict[UUID, DataKey] = {}
        self._keys: dict[UUID, DataKey] = {}
        """By generation."""

    async def seal(self, prompt: SubmitPrompt, tenant_id: UUID) -> SubmitPrompt:
        """``prompt`` with its content sealed, once its key is stored."""
        if prompt.keeps_content:
            if prompt.conversation_id not in self._kept:
                self._kept[prompt.conversation_id] = await self._store(prompt, tenant_id, None)
            key = self._kept[prompt.conversation_id]
        else:
            key = await self._store(prompt, tenant_id, prompt.generation_id)
        self._keys[prompt.generation_id] = key
        assert isinstance(prompt.content, Plain)
        content = PromptContent.model_validate(prompt.content.plain)
        return prompt.model_copy(update={"content": key.seal(content)})

    async def _store(self, prompt: SubmitPrompt, tenant_id: UUID, own: UUID | None) -> DataKey:
        key, wrapped = await DATA_KEYS.make(tenant_id, prompt.conversation_id)
        await self._execute(
            "INSERT INTO control.data_keys (tenant_id, conversation_id, generation_id, user_id, wrapped)"
            " VALUES ($1, $2, $3, $4, $5)",
            *(tenant_id, prompt.conversation_id, own, prompt.user_id, wrapped),
        )
        return key

    def answer(self, ended: Terminal) -> AnswerContent:
        """What was answered; nothing where nothing was."""
        if ended.content is None:
            assert ended.deltas == 0
            return AnswerContent(text="", delta_lengths=())
        found = opened(ended.content, self._keys[ended.generation_id], AnswerContent)
        assert ended.deltas == len(found.delta_lengths)
        return found

    def tokens(self, emitted: TokensEmitted) -> TokensContent:
        found = opened(emitted.content, self._keys[emitted.generation_id], TokensContent)
        assert emitted.count == len(found.deltas)
        return found
