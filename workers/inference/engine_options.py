"""How llama.cpp uses the machine: GPUs, shares of the model, attention, the KV cache."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from backplane.settings import PoolSettings
from backplane.settings.pools import FlashAttention, KvCacheType
from workers.inference.engine_build import Engine
from workers.inference.gpus import nvidia_gpus, refusal
from workers.inference.port import BackendUnavailable

_FLASH: dict[FlashAttention, str] = {"auto": "AUTO", "on": "ENABLED", "off": "DISABLED"}

_GGML_TYPES: dict[KvCacheType, int] = {"f32": 0, "f16": 1, "bf16": 30, "q8_0": 8, "q4_0": 2}
"""ggml's numbers, of which llama-cpp-python names some."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Options of one pool, as [pools.<pool>] in the settings describes them."""

    pool: str = "local"
    gpus: tuple[int, ...] | None = None
    tensor_split: tuple[float, ...] = ()
    flash_attention: FlashAttention = "auto"
    kv_cache_type: KvCacheType = "f16"

    @classmethod
    def of(cls, name: str, pool: PoolSettings) -> EngineOptions:
        """The options of the pool ``name``."""
        return cls(name, pool.gpus, pool.tensor_split, pool.flash_attention, pool.kv_cache_type)

    def check(self, module: Any) -> None:
        """Raises BackendUnavailable ``gpu_missing`` where the engine, the imported ``module``, can't use a GPU that is
        asked for. Blocks."""
        if not self.gpus and not self.tensor_split:
            return
        engine = Engine.installed(module)
        wrong = refusal(self.pool, self.gpus or (), nvidia_gpus(), engine) or self._split_refusal(engine)
        if wrong is not None:
            raise BackendUnavailable("gpu_missing", wrong)

    def apply(self, xllamacpp: Any, parameters: Any) -> None:
        """Set them in the engine's own ``parameters``."""
        parameters.flash_attn_type = xllamacpp.llama_flash_attn_type[f"LLAMA_FLASH_ATTN_TYPE_{self._flash}"]
        # One type for both: CUDA builds have no kernels for two different ones.
        cache_type = xllamacpp.ggml_type[f"GGML_TYPE_{self.kv_cache_type.upper()}"]
        parameters.cache_type_k = parameters.cache_type_v = cache_type
        # The engine wants a share for every GPU that there could be.
        rest = len(parameters.tensor_split) - len(self.tensor_split)
        parameters.tensor_split = [*self.tensor_split, *[0.0] * rest]

    def apply_to_context(self, llama_cpp: Any, parameters: Any) -> None:
        """Set them in llama.cpp's own parameters of a context."""
        parameters.flash_attn_type = getattr(llama_cpp, f"LLAMA_FLASH_ATTN_TYPE_{self._flash}")
        parameters.type_k = parameters.type_v = _GGML_TYPES[self.kv_cache_type]

    @property
    def _flash(self) -> str:
        # Left to choose, the engine crashes where it finds no flash attention for a quantised cache.
        quantised = self.kv_cache_type.startswith("q")
        return _FLASH["on" if self.flash_attention == "auto" and quantised else self.flash_attention]

    def doubts(self) -> str:
        """What else to try where the engine did not load; empty with the defaults."""
        if self.flash_attention == "auto" and self.kv_cache_type == "f16":
            return ""
        return (
            f', or kv_cache_type = "f16" and flash_attention = "auto" in [pools.{self.pool}] (now '
            f'"{self.kv_cache_type}" and "{self.flash_attention}"; not every model has them)'
        )

    def _split_refusal(self, engine: Engine) -> str | None:
        if not self.tensor_split or len(self.tensor_split) == len(engine.gpus):
            return None
        seen = f"{len(engine.gpus)} GPUs ({', '.join(engine.gpus) or 'none'})"
        return (
            f"[pools.{self.pool}].tensor_split has {len(self.tensor_split)} shares, and llama.cpp sees {seen}; give "
            "one share for each, or take it out of settings.toml"
        )


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
