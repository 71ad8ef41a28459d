"""The ingest service's third task: making vectors for who has no embedder."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator

from backplane.ports import embeddings
from backplane.ports.database import Database
from backplane.ports.embeddings import Asked, EmbeddingFailed, Made, TextsRefused
from backplane.ports.token_stream import Signals
from workers.embedding.port import EmbeddingError
from workers.knowledge.desk import Desk
from workers.knowledge.embedders import Embedders


class EmbeddingDesk(Desk[Asked]):
    name, at_once = "embedding", 8

    def __init__(self, signals: Signals, database: Database, embedders: Embedders) -> None:
        super().__init__(database)
        self._signals = signals
        self._embedders = embedders

    def asked(self) -> AsyncGenerator[Asked]:
        return embeddings.asked(self._signals)

    async def serve(self, asked: Asked) -> None:
        made: Made | EmbeddingFailed
        try:
            made = await self._made(asked)
        except EmbeddingFailed as failed:
            made = failed
        except EmbeddingError as error:
            of_texts = error.reason == "embedder_refused"
            made = (TextsRefused if of_texts else EmbeddingFailed)(error.reason, str(error))
        await embeddings.answer(self._signals, asked, made)

    async def fail(self, asked: Asked, reason: str, message: str) -> None:
        await embeddings.answer(self._signals, asked, EmbeddingFailed(reason, message))

    async def _made(self, asked: Asked) -> Made:
        """Raises EmbeddingFailed, EmbeddingError."""
        embedder = await self._embedders.get(asked.embedder)
        lengths = await asyncio.to_thread(embedder.lengths, asked.texts)
        if embedder.window is not None:
            for number, length in enumerate(lengths, asked.first):
                if length > embedder.window:
                    raise TextsRefused(
                        "context_length_exceeded",
                        f"text {number} has {length} tokens; {asked.embedder} takes {embedder.window}",
                    )
        # Whoever embeds a question in order to search says nothing of it here.
        vectors = await embedder.embed(asked.texts, "passage")
        own = len(vectors[0])
        if asked.dimensions not in (None, own):
            raise TextsRefused(
                "other_dimensions", f"vectors of {asked.embedder} have {own} dimensions, and no others", "dimensions"
            )
        packed = [struct.pack(f"<{len(vector)}f", *vector) for vector in vectors]
        return Made(packed, sum(lengths), embedder.identity)
