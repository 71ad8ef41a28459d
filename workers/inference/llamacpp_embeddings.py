"""Embeddings of a GGUF model by llama.cpp, in process (`xllamacpp`)."""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from workers.embedding.port import EmbedderUnavailable, EmbeddingRefused, Purpose, Vector
from workers.inference.engine_options import usable_cores
from workers.inference.gguf import ModelError, read_header
from workers.inference.model_files import choose_context_window

_AT_ONCE = 16
_BYTES_A_TOKEN = 2.5


class LlamaCppEmbedder:
    """How tokens become one vector is said by the file; one that says nothing, as language models do, gets their mean.

    Texts of over ``window`` tokens, or of more than the model has, are refused by the engine.
    """

    def __init__(self, model_file: Path, *, window: int = 512) -> None:
        self._model_file = model_file
        self._wanted_window = window
        self._server: Any = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embedder")

    @property
    def identity(self) -> str:
        return self._model_file.stem

    @property
    def window(self) -> None:
        return None

    async def start(self) -> None:
        self._server = await asyncio.get_running_loop().run_in_executor(self._thread, self._load)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """An estimate on the high side: the engine tells no counts but those of what it computed."""
        return [math.ceil(len(text.encode()) / _BYTES_A_TOKEN) for text in texts]

    async def embed(self, texts: Sequence[str], purpose: Purpose) -> list[Vector]:
        if self._server is None:
            raise EmbedderUnavailable("embedder_closed", "the embedder is not open")
        vectors: list[Vector] = []
        for begin in range(0, len(texts), _AT_ONCE):
            some = texts[begin : begin + _AT_ONCE]
            vectors += await asyncio.get_running_loop().run_in_executor(self._thread, self._embed, some)
        return vectors

    async def close(self) -> None:
        engines, self._server = [self._server], None
        # Letting the engine go waits for its own threads.
        await asyncio.to_thread(engines.clear)
        await asyncio.to_thread(self._thread.shutdown)

    def _embed(self, texts: Sequence[str]) -> list[Vector]:
        answer = self._server.handle_embeddings({"input": list(texts), "encoding_format": "float"})
        found = answer if isinstance(answer, dict) else json.loads(answer)
        if "data" not in found:
            code = found.get("error", found).get("type", "without a word")
            raise EmbeddingRefused("embedder_refused", f"llama.cpp did not embed {len(texts)} texts ({code})")
        return [each["embedding"] for each in sorted(found["data"], key=lambda each: each["index"])]

    def _load(self) -> Any:
        try:
            import xllamacpp
        except ImportError as error:
            raise EmbeddingRefused(
                "embedder_missing", f"xllamacpp can't be imported ({error}); install it with `pip install xllamacpp`"
            ) from error
        try:
            header = read_header(self._model_file)
            window = choose_context_window(self._model_file, header, self._wanted_window)
        except ModelError as error:
            raise EmbeddingRefused("embedder_unusable", str(error)) from error
        # As with language models: the engine insists on a listener, and nothing can reach this one.
        with tempfile.TemporaryDirectory(prefix="parley-") as folder:
            try:
                return xllamacpp.Server(self._parameters(xllamacpp, window, Path(folder) / "engine.sock"))
            except RuntimeError as error:
                raise EmbeddingRefused(
                    "embedder_unusable",
                    f"llama.cpp could not load {self._model_file}: it does not know the architecture"
                    f" {header.architecture!r}, or memory is short",
                ) from error

    def _parameters(self, xllamacpp: Any, window: int, socket: Path) -> Any:
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(self._model_file)
        parameters.embedding = True
        parameters.embd_normalize = 2  # Euclidean
        parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
        parameters.n_parallel = 1
        parameters.n_ctx = window
        # A text is computed in one piece.
        parameters.n_batch = parameters.n_ubatch = window
        parameters.fit_params = False  # would shrink the window without a word
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = max(1, usable_cores() - 1)
        parameters.cache_ram_mib = 0
        parameters.warmup = False
        parameters.verbosity = -1  # its log carries texts
        parameters.hostnames = [str(socket)]
        parameters.api_keys = [secrets.token_urlsafe(32)]
        parameters.n_threads_http = 1
        parameters.endpoint_slots = False
        parameters.ui = False
        return parameters
