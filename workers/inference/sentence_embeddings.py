"""Embeddings and rankings of any model that the `sentence-transformers` library runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from workers.embedding.port import EmbedderUnavailable, EmbeddingRefused, Purpose, Vector

T = TypeVar("T")


class _InThread:
    """A model of the library in a thread of its own."""

    def __init__(self, model: str) -> None:
        self._name = model
        self._model: Any = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sentences")

    async def close(self) -> None:
        self._model = None
        await asyncio.to_thread(self._thread.shutdown)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _loaded(self, kind: str) -> Any:
        try:
            import sentence_transformers
        except ImportError as error:
            raise EmbeddingRefused(
                "embedder_missing",
                f"sentence-transformers can't be imported ({error}); install it with `uv sync --inexact --extra"
                " sentence-transformers` or `pip install 'parley[sentence-transformers]'`",
            ) from error
        try:
            # Code that comes with a model is never run.
            return getattr(sentence_transformers, kind)(self._name, trust_remote_code=False)
        except (OSError, ValueError, RuntimeError) as error:
            raise EmbeddingRefused(
                "embedder_unusable", f"the model {self._name} cannot be loaded ({type(error).__name__}: {error})"
            ) from error


class SentenceEmbedder(_InThread):
    """``model`` is a folder, or a repository of the hub, which is downloaded: ``BAAI/bge-small-en-v1.5``."""

    @property
    def identity(self) -> str:
        return self._name

    @property
    def window(self) -> int | None:
        window: int | None = self._model.max_seq_length
        # The marks at both ends are added to the text.
        return None if window is None else window - 2

    async def start(self) -> None:
        self._model = await self._run(lambda: self._loaded("SentenceTransformer"))

    def lengths(self, texts: Sequence[str]) -> list[int]:
        found = self._model.tokenizer(list(texts), add_special_tokens=False, truncation=False, verbose=False)
        return [len(ids) for ids in found["input_ids"]]

    async def embed(self, texts: Sequence[str], purpose: Purpose) -> list[Vector]:
        if self._model is None:
            raise EmbedderUnavailable("embedder_closed", "the embedder is not open")
        # The prompts that a model was taught for each are in its own configuration.
        encode = self._model.encode_query if purpose == "question" else self._model.encode_document
        vectors: list[Vector] = await self._run(
            lambda: encode(list(texts), normalize_embeddings=True, show_progress_bar=False).tolist()
        )
        return vectors


class SentenceReranker(_InThread):
    """``model`` is a cross-encoder, such as ``mixedbread-ai/mxbai-rerank-base-v1``."""

    async def start(self) -> None:
        self._model = await self._run(lambda: self._loaded("CrossEncoder"))

    async def scores(self, question: str, passages: Sequence[str]) -> list[float]:
        if self._model is None:
            raise EmbedderUnavailable("reranker_closed", "the reranker is not open")
        pairs = [(question, passage) for passage in passages]
        found: list[float] = await self._run(lambda: self._model.predict(pairs, show_progress_bar=False).tolist())
        return found
