"""Tokens as a model's own vocabulary counts them, where that is at hand.

A GGUF file's by `llama-cpp-python`, a Transformers model's by `tokenizers` and the ``tokenizer.json`` in its folder,
others' by `tiktoken` and its file of that vocabulary. What is not at hand is not fetched.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import logging
import os
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from backplane.settings.pools import RUNS_GGUF, PoolSettings

logger = logging.getLogger(__name__)

Count = Callable[[str], int]

_FILES = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"
"""Under a hash of this name `tiktoken` keeps a file in ``TIKTOKEN_CACHE_DIR``."""

_MOST_CHARACTERS = 20_000
"""Counting takes about a microsecond for each; more would hold up other prompts."""


def count(pool: PoolSettings, model: str, text: str) -> int | None:
    """Tokens of ``text`` for ``model`` of ``pool``. None: not to be known here."""
    if len(text) > _MOST_CHARACTERS:
        return None
    counted = _vocabulary(pool, model)
    return None if counted is None else counted(text)


def load(pools: Iterable[PoolSettings]) -> None:
    """Load the vocabularies of local models now, so that no prompt waits for them. It blocks."""
    for pool in pools:
        for model in pool.model_names:
            _vocabulary(pool, model)


def _vocabulary(pool: PoolSettings, model: str) -> Count | None:
    name = pool.name_at_backend(model)
    if pool.backend in RUNS_GGUF:
        file = pool.model_files.get(name, pool.model_file)
        return None if file is None else _of_gguf(file)
    if pool.backend == "transformers":
        return _of_folder(Path(name))
    return _of_provider(name)


@lru_cache(maxsize=64)
def _of_gguf(file: Path) -> Count | None:
    if (llama_cpp := _library("llama_cpp")) is None or not file.is_file():
        return None
    llama_cpp.llama_log_set(_no_log(llama_cpp), ctypes.c_void_p())
    parameters = llama_cpp.llama_model_default_params()
    parameters.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(file).encode(), parameters)
    if model is None:
        logger.warning("no vocabulary in %s: tokens are estimated", file, extra={"action": "tokens_estimated"})
        return None
    vocabulary = llama_cpp.llama_model_get_vocab(model)

    def counted(text: str) -> int:
        data = text.encode(errors="replace")
        # With no room for them, it says how many there are, as a negative number (llama.h).
        return -int(llama_cpp.llama_tokenize(vocabulary, data, len(data), None, 0, False, False))

    return counted


@lru_cache(maxsize=1)
def _no_log(llama_cpp: Any) -> Any:
    # The library calls it as long as the process lives, and ctypes does not keep it.
    return llama_cpp.llama_log_callback(lambda level, text, data: None)


@lru_cache(maxsize=64)
def _of_folder(folder: Path) -> Count | None:
    file = folder / "tokenizer.json"
    if (tokenizers := _library("tokenizers")) is None or not file.is_file():
        return None
    vocabulary = tokenizers.Tokenizer.from_file(str(file))
    return lambda text: len(vocabulary.encode(text, add_special_tokens=False).ids)


@lru_cache(maxsize=256)
def _of_provider(model: str) -> Count | None:
    folder = os.environ.get("TIKTOKEN_CACHE_DIR")
    if not folder or (tiktoken := _library("tiktoken")) is None:
        return None
    try:
        name = tiktoken.encoding_name_for_model(model)
    except KeyError:
        return None
    file = Path(folder, hashlib.sha1(_FILES.format(name).encode(), usedforsecurity=False).hexdigest())
    if not file.is_file():
        logger.info("tokens of %s are estimated: no file for %s", model, name, extra={"action": "tokens_estimated"})
        return None
    encoding = tiktoken.get_encoding(name)
    return lambda text: len(encoding.encode_ordinary(text))


def _library(name: str) -> Any:
    """The module of that name; None where its extra is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
