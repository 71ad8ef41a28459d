"""A server that ranks: `/rerank` as Cohere has it, and Jina, vLLM, llama.cpp and LiteLLM after it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import httpx

from workers.embedding.port import EmbedderUnavailable, EmbeddingRefused

_TIMEOUT_S = 20.0


class RerankEndpoint:
    """``url`` is the whole address, which an operator set."""

    def __init__(self, url: str, *, model: str | None, key: str | None) -> None:
        self._url = url
        self._model = model
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._client: httpx.AsyncClient | None = None

    async def start(self) -> None:
        self._client = httpx.AsyncClient(timeout=_TIMEOUT_S, headers=self._headers)

    async def scores(self, question: str, passages: Sequence[str]) -> list[float]:
        if self._client is None:
            raise EmbedderUnavailable("reranker_closed", "the reranker is not open")
        body: dict[str, Any] = {"query": question, "documents": list(passages), "top_n": len(passages)}
        if self._model is not None:
            body["model"] = self._model
        try:
            answer = await self._client.post(self._url, json=body)
        except httpx.TransportError as error:
            raise EmbedderUnavailable(
                "reranker_unreachable", f"{self._url} cannot be reached ({type(error).__name__})"
            ) from None
        if answer.status_code == 429 or answer.status_code >= 500:
            raise EmbedderUnavailable("reranker_failed", f"{self._url} answered {answer.status_code}")
        if not answer.is_success:
            raise EmbeddingRefused("reranker_refused", f"{self._url} answered {answer.status_code}")
        return _scores(answer, len(passages), self._url)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()


def _scores(answer: httpx.Response, number: int, url: str) -> list[float]:
    try:
        found = {int(each["index"]): float(each["relevance_score"]) for each in answer.json()["results"]}
        scores = [found[index] for index in range(number)]
    except (ValueError, TypeError, KeyError):
        raise EmbedderUnavailable("bad_ranking", f"{url} sent what is no ranking of {number} passages") from None
    if not all(map(math.isfinite, scores)):
        raise EmbedderUnavailable("bad_ranking", f"{url} sent a score that is no number")
    return scores
