"""The embedders of the settings, and the reranker. Each is loaded when it is first needed, and stays."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from backplane.settings.knowledge import EmbedderSettings, RerankerSettings
from workers.embedding.port import Embedder, EmbeddingRefused
from workers.embedding.registry import make_embedder, make_reranker
from workers.embedding.reranking import Reranker


class Embedders:
    """``reranker`` None: there is none."""

    def __init__(self, embedders: Mapping[str, EmbedderSettings], reranker: RerankerSettings | None) -> None:
        self._wanted = embedders
        self._wanted_reranker = reranker
        self._ready: dict[str, Embedder] = {}
        self._reranker: Reranker | None = None
        self._loading = asyncio.Lock()

    def settings_of(self, name: str) -> EmbedderSettings:
        """Raises EmbeddingRefused: ``no_such_embedder``."""
        if name not in self._wanted:
            raise EmbeddingRefused(
                "no_such_embedder",
                f"the settings have no embedder {name!r} any more; name it again under [knowledge.embedders]",
            )
        return self._wanted[name]

    async def get(self, name: str) -> Embedder:
        """Ready to embed. Raises EmbeddingError."""
        wanted = self.settings_of(name)
        async with self._loading:
            if name not in self._ready:
                made = make_embedder(wanted)
                await made.start()
                self._ready[name] = made
            return self._ready[name]

    async def reranker(self) -> Reranker | None:
        """Ready to rank. Raises EmbeddingError."""
        if self._wanted_reranker is None:
            return None
        async with self._loading:
            if self._reranker is None:
                made = make_reranker(self._wanted_reranker)
                await made.start()
                self._reranker = made
            return self._reranker

    async def close(self) -> None:
        for one in self._ready.values():
            await one.close()
        if self._reranker is not None:
            await self._reranker.close()
