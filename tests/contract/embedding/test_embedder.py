"""What every embedder keeps to. A new one adds one line to EMBEDDERS."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from backplane.settings.knowledge import EmbedderSettings
from tests.contract.inference.packaged import packaged_model as packaged_model
from tests.embedding_server import KEY, embedding_server
from workers.embedding.minilm import MiniLm
from workers.embedding.port import Embedder, EmbedderUnavailable, Vector
from workers.embedding.registry import make_embedder
from workers.inference.llamacpp_embeddings import LlamaCppEmbedder
from workers.inference.openai_embeddings import OpenAIEmbedder
from workers.inference.sentence_embeddings import SentenceEmbedder

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXTS = [
    "The harbour freezes in a hard winter.",
    "Ships stay in port while there is ice.",
    "Bread needs salt and time.",
]


class ServedEmbedder(OpenAIEmbedder):
    """Brings its server along."""

    def __init__(self) -> None:
        super().__init__("words", base_url=None, key=KEY, dimensions=None)
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        self._base_url = (await self._stack.enter_async_context(embedding_server())).url
        await super().start()

    async def close(self) -> None:
        await super().close()
        await self._stack.aclose()


EMBEDDERS = [
    pytest.param(lambda _: MiniLm(), id="minilm"),
    pytest.param(lambda _: ServedEmbedder(), id="openai"),
    pytest.param(lambda use: LlamaCppEmbedder(use("packaged_model")), id="xllamacpp", marks=pytest.mark.model),
]


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=EMBEDDERS)
async def embedder(request: pytest.FixtureRequest) -> AsyncIterator[Embedder]:
    made: Embedder = request.param(request.getfixturevalue)
    await made.start()
    yield made
    await made.close()


def cosine(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


async def test_each_text_has_a_vector_of_length_one(embedder: Embedder) -> None:
    vectors = await embedder.embed(TEXTS, "passage")
    assert len(vectors) == len(TEXTS)
    assert len({len(vector) for vector in vectors}) == 1
    assert [math.hypot(*vector) for vector in vectors] == pytest.approx([1.0] * len(TEXTS), abs=1e-4)


async def test_many_texts_keep_their_order(embedder: Embedder) -> None:
    many = [f"Number {n} of the list, with {'more ' * (n % 7)}words." for n in range(70)]
    vectors = await embedder.embed(many, "passage")
    for place in (0, 33, 69):
        (alone,) = await embedder.embed([many[place]], "passage")
        assert cosine(vectors[place], alone) == pytest.approx(1.0, abs=5e-3)


async def test_the_same_words_are_nearest_to_themselves(embedder: Embedder) -> None:
    stored = await embedder.embed(TEXTS, "passage")
    (asked,) = await embedder.embed([TEXTS[2]], "passage")
    near = [cosine(asked, vector) for vector in stored]
    assert near.index(max(near)) == 2


async def test_no_texts_have_no_vectors(embedder: Embedder) -> None:
    assert await embedder.embed([], "passage") == []


async def test_longer_texts_have_more_tokens(embedder: Embedder) -> None:
    short, long = embedder.lengths(["ice", "ice and salt and bread and the harbour"])
    assert 1 <= short < long


async def test_its_identity_stays_the_same(embedder: Embedder) -> None:
    assert embedder.identity == embedder.identity != ""


async def test_who_is_not_open_says_so(tmp_path: Path) -> None:
    closed: list[Callable[[], Embedder]] = [
        MiniLm,
        lambda: LlamaCppEmbedder(tmp_path / "no.gguf"),
        lambda: SentenceEmbedder("none"),
        lambda: make_embedder(EmbedderSettings(kind="openai", model="words")),
    ]
    for make in closed:
        with pytest.raises(EmbedderUnavailable, match="not open"):
            await make().embed(["a text"], "question")
