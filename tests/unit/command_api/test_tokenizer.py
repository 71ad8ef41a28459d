"""A vocabulary is used where its file is at hand, and never fetched."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from backplane.settings.pools import PoolSettings
from command_api import tokenizer

ASKED = PoolSettings(backend="openai", models=("known", "unknown"))
LOCAL = PoolSettings(backend="xllamacpp", models=("known",))


class Words:
    """An encoding in which a word is a token."""

    def encode_ordinary(self, text: str) -> list[str]:
        return text.split()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    def name_of(model: str) -> str:
        return {"known": "words_base"}[model]

    def encoding(name: str) -> Words:
        assert name == "words_base"
        return Words()

    library = SimpleNamespace(encoding_name_for_model=name_of, get_encoding=encoding)
    monkeypatch.setitem(sys.modules, "tiktoken", library)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    tokenizer._of_provider.cache_clear()
    yield tmp_path
    tokenizer._of_provider.cache_clear()


def test_without_its_file_a_vocabulary_is_not_asked_for(folder: Path) -> None:
    assert tokenizer.count(ASKED, "known", "one two") is None


def test_with_its_file_it_counts(folder: Path) -> None:
    url = "https://openaipublic.blob.core.windows.net/encodings/words_base.tiktoken"
    (folder / hashlib.sha1(url.encode()).hexdigest()).touch()
    assert tokenizer.count(ASKED, "known", "one two") == 2
    assert tokenizer.count(ASKED, "unknown", "one two") is None
    assert tokenizer.count(ASKED, "known", "x" * 20_001) is None


def test_a_local_model_is_not_counted_by_a_providers_vocabulary(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://openaipublic.blob.core.windows.net/encodings/words_base.tiktoken"
    (folder / hashlib.sha1(url.encode()).hexdigest()).touch()
    assert tokenizer.count(LOCAL, "known", "one two") is None
    monkeypatch.setitem(sys.modules, "llama_cpp", None)  # as where it is not installed
    named = LOCAL.model_copy(update={"model_file": folder / "model.gguf"})
    assert tokenizer.count(named, "known", "one two") is None
