"""Claude's backends that bring the provider's server along, so that both start and end on the loop that they are used
on."""

from __future__ import annotations

from contextlib import AsyncExitStack

from tests.providers.model import Model
from tests.providers.served import NO_KEY, TALKATIVE
from tests.providers.server import providers
from workers.inference.anthropic_messages import AnthropicBackend, Platform
from workers.inference.port import Progress


class ServedAnthropic(AnthropicBackend):
    """Its provider has one model, by the name of ``any``."""

    def __init__(self, *, slots: int, window: int, platform: Platform = "anthropic") -> None:
        super().__init__(None, slots=slots, platform=platform, region="us-east-1", project="tests")
        self._window = window
        self._stack = AsyncExitStack()

    async def start(self, progress: Progress) -> None:
        server = await self._stack.enter_async_context(providers(default=TALKATIVE))
        server.models["any"] = Model(context=self._window)
        server.add_key(NO_KEY)
        self._base_url = server.openai_url if self._platform == "vertex" else server.url
        await super().start(progress)

    async def close(self) -> None:
        await super().close()
        await self._stack.aclose()
