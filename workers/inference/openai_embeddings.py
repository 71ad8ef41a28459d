"""Embeddings of OpenAI, and of every server that has `/v1/embeddings` as it has, through OpenAI's own SDK."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from workers.embedding.port import EmbedderUnavailable, EmbeddingRefused, Purpose, Vector

_AT_ONCE = 64
_TIMEOUT_S = 60.0
_NO_KEY = "none"
"""What servers that want no key are sent, since the SDK insists on one."""

_BYTES_A_TOKEN = 2.5
"""Fewer than tokens of prose have in any of these models, so that a chunk is rather too short than cut."""


class OpenAIEmbedder:
    """``base_url`` None is OpenAI itself. ``dimensions`` None: as many as the model has."""

    def __init__(self, model: str, *, base_url: str | None, key: str | None, dimensions: int | None) -> None:
        self._model = model
        self._base_url = base_url
        self._key = key
        self._dimensions = dimensions
        self._client: Any = None

    @property
    def identity(self) -> str:
        return self._model if self._dimensions is None else f"{self._model}/{self._dimensions}"

    async def start(self) -> None:
        try:
            import openai
        except ImportError as error:
            raise EmbeddingRefused(
                "embedder_missing", f"the openai SDK can't be imported ({error}); run `make install` again"
            ) from error
        self._openai = openai
        self._client = openai.AsyncOpenAI(
            api_key=self._key or _NO_KEY, base_url=self._base_url, timeout=_TIMEOUT_S, max_retries=2
        )

    @property
    def window(self) -> None:
        return None

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """An estimate on the high side: each model behind such a server counts in its own way."""
        return [math.ceil(len(text.encode()) / _BYTES_A_TOKEN) for text in texts]

    async def embed(self, texts: Sequence[str], purpose: Purpose) -> list[Vector]:
        vectors: list[Vector] = []
        for begin in range(0, len(texts), _AT_ONCE):
            vectors += await self._asked(texts[begin : begin + _AT_ONCE])
        return vectors

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _asked(self, texts: Sequence[str]) -> list[Vector]:
        if self._client is None:
            raise EmbedderUnavailable("embedder_closed", "the embedder is not open")
        wanted = {} if self._dimensions is None else {"dimensions": self._dimensions}
        where = self._base_url or "OpenAI"
        try:
            answer = await self._client.embeddings.create(
                model=self._model, input=list(texts), encoding_format="float", **wanted
            )
        except self._openai.APIStatusError as error:
            # What it says may quote the texts.
            told = f"{where} answered {error.status_code} ({error.code or error.type or 'without a code'})"
            if error.status_code in (408, 409, 429) or error.status_code >= 500:
                raise EmbedderUnavailable("embedder_failed", told) from None
            raise EmbeddingRefused("embedder_refused", told) from None
        except self._openai.APIConnectionError as error:
            raise EmbedderUnavailable(
                "embedder_unreachable", f"{where} cannot be reached ({type(error).__name__}); is `base_url` right?"
            ) from None
        vectors = [each.embedding for each in sorted(answer.data or (), key=lambda each: each.index)]
        if len(vectors) != len(texts) or not all(vectors):
            raise EmbedderUnavailable("bad_embeddings", f"{where} sent {len(vectors)} vectors for {len(texts)} texts")
        return [_of_length_one(vector) for vector in vectors]


def _of_length_one(vector: Sequence[float]) -> Vector:
    length = math.hypot(*vector)
    if not length or not math.isfinite(length):
        raise EmbedderUnavailable("bad_embeddings", "the server sent a vector that has no direction")
    return [value / length for value in vector]
