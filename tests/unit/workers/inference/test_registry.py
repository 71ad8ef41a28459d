from __future__ import annotations

from pathlib import Path

import pytest

from backplane.settings import LlmSettings, PoolSettings
from backplane.settings.pools import BackendName
from workers.inference.hugging_face import TransformersBackend
from workers.inference.llama_cpp_python import LlamaCppPythonBackend
from workers.inference.llamacpp import LlamaCppBackend
from workers.inference.many_models import ManyModels
from workers.inference.registry import make_backend
from workers.inference.scripted import ScriptedBackend

LLM = LlmSettings()


def test_each_backend_has_its_class() -> None:
    assert isinstance(make_backend("p", PoolSettings(backend="scripted"), LLM), ScriptedBackend)
    pool = PoolSettings(backend="xllamacpp", model_file=Path("m.gguf"))
    assert isinstance(make_backend("p", pool, LLM), LlamaCppBackend)
    pool = PoolSettings(backend="llama-cpp-python", model_file=Path("m.gguf"))
    assert isinstance(make_backend("p", pool, LLM), LlamaCppPythonBackend)
    pool = PoolSettings(backend="transformers", models=({"small": "a/b"},))
    assert isinstance(make_backend("p", pool, LLM), TransformersBackend)
    several = PoolSettings(backend="xllamacpp", model_files={"a": Path("a.gguf"), "b": Path("b.gguf")})
    assert isinstance(make_backend("p", several, LLM), ManyModels)


@pytest.mark.parametrize("backend", ["xllamacpp", "llama-cpp-python"])
def test_a_pool_without_its_model_file_is_named(backend: BackendName) -> None:
    with pytest.raises(ValueError, match=r"pool 'p'.*model_file"):
        make_backend("p", PoolSettings(backend=backend), LLM)
