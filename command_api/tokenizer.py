"""Tokens as a model's own vocabulary counts them, where `tiktoken` and its file of that vocabulary are at hand."""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_FILES = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"
"""Under a hash of this name `tiktoken` keeps a file in ``TIKTOKEN_CACHE_DIR``."""

_MOST_CHARACTERS = 20_000
"""Counting takes about a microsecond for each; more would hold up other prompts."""


def count(model: str, text: str) -> int | None:
    """Tokens of ``text`` for ``model``, by its provider's name of it. None: not to be known here.

    What is not at hand is not fetched.
    """
    if len(text) > _MOST_CHARACTERS:
        return None
    encoding = _encoding(model)
    return None if encoding is None else len(encoding.encode_ordinary(text))


@lru_cache(maxsize=256)
def _encoding(model: str) -> Any:
    folder = os.environ.get("TIKTOKEN_CACHE_DIR")
    if not folder:
        return None
    try:
        tiktoken = importlib.import_module("tiktoken")
        name = tiktoken.encoding_name_for_model(model)
    except (ImportError, KeyError):
        return None
    file = Path(folder, hashlib.sha1(_FILES.format(name).encode(), usedforsecurity=False).hexdigest())
    if not file.is_file():
        logger.info("tokens of %s are estimated: no file for %s", model, name, extra={"action": "tokens_estimated"})
        return None
    return tiktoken.get_encoding(name)
