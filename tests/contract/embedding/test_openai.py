from __future__ import annotations

import pytest

from backplane.settings.knowledge import EmbedderSettings, RerankerSettings
from tests.embedding_server import KEY, embedding_server
from workers.embedding.port import EmbedderUnavailable, EmbeddingRefused
from workers.embedding.registry import make_embedder, make_reranker
from workers.embedding.rerank_endpoint import RerankEndpoint
from workers.inference.openai_embeddings import OpenAIEmbedder


async def test_a_server_is_asked_for_the_dimensions_that_are_set() -> None:
    async with embedding_server() as server:
        wanted = {"kind": "openai", "model": "words", "base_url": server.url, "key": KEY, "dimensions": 16}
        embedder = make_embedder(EmbedderSettings.model_validate(wanted))
        await embedder.start()
        (vector,) = await embedder.embed(["salt"], "passage")
        await embedder.close()
    assert len(vector) == 16
    assert embedder.identity == "words/16"


async def test_a_fault_that_passes_is_tried_again() -> None:
    async with embedding_server() as server:
        server.faults = [503]
        embedder = OpenAIEmbedder("words", base_url=server.url, key=KEY, dimensions=None)
        await embedder.start()
        assert len(await embedder.embed(["salt"], "passage")) == 1
        await embedder.close()


@pytest.mark.parametrize(
    ("key", "text", "error", "says"),
    [
        ("wrong", "salt", EmbeddingRefused, "answered 401"),
        (KEY, "salt " * 300, EmbeddingRefused, "context_length_exceeded"),
    ],
)
async def test_what_can_never_be_embedded_is_refused(key: str, text: str, error: type[Exception], says: str) -> None:
    async with embedding_server() as server:
        embedder = OpenAIEmbedder("words", base_url=server.url, key=key, dimensions=None)
        await embedder.start()
        with pytest.raises(error, match=says) as raised:
            await embedder.embed([text], "passage")
        await embedder.close()
    assert key not in str(raised.value)
    assert "salt" not in str(raised.value)


async def test_a_server_that_is_not_there_may_be_there_later() -> None:
    async with embedding_server() as server:
        url = server.url
    embedder = OpenAIEmbedder("words", base_url=url, key=None, dimensions=None)
    await embedder.start()
    with pytest.raises(EmbedderUnavailable, match="cannot be reached"):
        await embedder.embed(["salt"], "passage")
    await embedder.close()


async def test_a_server_ranks() -> None:
    async with embedding_server() as server:
        reranker = make_reranker(RerankerSettings.model_validate({"url": f"{server.url}/rerank", "key": KEY}))
        await reranker.start()
        scores = await reranker.scores("salt in bread", ["ships and ice", "bread needs salt", "a loaf of bread"])
        await reranker.close()
    assert scores[1] > scores[2] > scores[0]


@pytest.mark.parametrize(
    ("faults", "key", "error"), [([], "wrong", EmbeddingRefused), ([500], KEY, EmbedderUnavailable)]
)
async def test_a_server_that_ranks_nothing_says_why(faults: list[int], key: str, error: type[Exception]) -> None:
    async with embedding_server() as server:
        server.faults = faults
        reranker = RerankEndpoint(f"{server.url}/rerank", model=None, key=key)
        await reranker.start()
        with pytest.raises(error, match="answered"):
            await reranker.scores("salt", ["bread"])
        await reranker.close()
