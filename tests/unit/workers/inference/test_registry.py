from __future__ import annotations

from pathlib import Path

import pytest

from backplane.settings import LlmSettings, PoolSettings
from workers.inference.llamacpp import LlamaCppBackend
from workers.inference.registry import make_backend
from workers.inference.scripted import ScriptedBackend

LLM = LlmSettings()


def test_each_backend_has_its_class() -> None:
    assert isinstance(make_backend("p", PoolSettings(backend="scripted"), LLM), ScriptedBackend)
    pool = PoolSettings(backend="xllamacpp", model_file=Path("m.gguf"))
    assert isinstance(make_backend("p", pool, LLM), LlamaCppBackend)


def test_a_pool_without_its_model_file_is_named() -> None:
    with pytest.raises(ValueError, match=r"pool 'p'.*model_file"):
        make_backend("p", PoolSettings(backend="xllamacpp"), LLM)
