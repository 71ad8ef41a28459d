"""Backends that bring the provider's server along, so that both start and end on the loop that they are used on."""

from __future__ import annotations

from contextlib import AsyncExitStack

from tests.providers.model import Model
from tests.providers.script import Script
from tests.providers.server import providers
from workers.inference.openai_chat import OpenAIBackend
from workers.inference.port import Progress

NO_KEY = "none"
TALKATIVE = Script(words=100_000, token_s=0.012)
"""Says as much as it may, slowly enough to be stopped."""


class ServedOpenAI(OpenAIBackend):
    """Its provider has one model, by the name of ``any``."""

    def __init__(self, *, slots: int, window: int, azure: bool = False) -> None:
        super().__init__(None, slots=slots, azure_api_version="2024-10-21" if azure else None)
        self._window = window
        self._azure = azure
        self._stack = AsyncExitStack()

    async def start(self, progress: Progress) -> None:
        server = await self._stack.enter_async_context(providers(default=TALKATIVE))
        server.models["any"] = Model(context=self._window)
        server.add_key(NO_KEY)
        self._base_url = server.url if self._azure else server.openai_url
        await super().start(progress)

    async def close(self) -> None:
        await super().close()
        await self._stack.aclose()
