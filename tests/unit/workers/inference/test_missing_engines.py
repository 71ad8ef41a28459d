"""Engines that `make install` leaves out say how they are installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.unit.workers.inference.gguf_files import language_model
from workers.inference.hugging_face import TransformersBackend
from workers.inference.llama_cpp_python import LlamaCppPythonBackend
from workers.inference.port import Backend, BackendUnavailable


async def refusal(backend: Backend) -> str:
    with pytest.raises(BackendUnavailable) as raised:
        await backend.start(lambda doing, share: None)
    assert raised.value.reason == "engine_missing"
    return str(raised.value)


async def test_llama_cpp_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    monkeypatch.delitem(sys.modules, "workers.inference.llama_cpp_model", raising=False)
    file = tmp_path / "m.gguf"
    file.write_bytes(language_model())
    said = await refusal(LlamaCppPythonBackend(file, slots=1))
    assert "`make install-llama-cpp-python` or `pip install 'parley[llama-cpp-python]'`" in said
    assert "C++ compiler" in said


@pytest.mark.parametrize("module", ["torch", "transformers"])
async def test_transformers(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "workers.inference.transformers_model", raising=False)
    said = await refusal(TransformersBackend("any/model", slots=1))
    assert "`make install-transformers` or `pip install 'parley[transformers]'`" in said
