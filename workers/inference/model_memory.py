"""How much memory a model takes once it is loaded, estimated from the header of its file."""

from __future__ import annotations

from backplane.settings.pools import KvCacheType
from workers.inference.gguf import Attention, GgufHeader

_MIB = 1024**2

ENGINE_BYTES = 192 * _MIB
"""What an engine takes beside the model and its cache: its process, and the buffers that it computes in."""

_BYTES: dict[KvCacheType, float] = {"f32": 4, "f16": 2, "bf16": 2, "q8_0": 34 / 32, "q4_0": 18 / 32}
"""Of one number in the cache."""

_PERIODS = {"cohere2": 4, "gemma2": 2, "gemma3": 6, "gemma3n": 5, "gpt-oss": 2}
"""Architectures of which llama.cpp knows that only one of so many layers looks beyond the sliding window."""

_LONGEST_BATCH = 512
_STEP = 256
"""Cells of the cache come in steps of so many."""


def needed_bytes(header: GgufHeader, size: int, *, window: int, slots: int, kv_cache_type: KvCacheType) -> int:
    """Bytes for ``size`` bytes of weights, the engine, and a cache of ``slots`` × ``window`` tokens.

    An estimate that is rather too large: of a model about which the file says little, all layers count as if they
    kept the whole window.
    """
    shape = header.attention
    a_cell = shape.heads * (shape.key_length + shape.value_length) * _BYTES[kv_cache_type]
    return size + ENGINE_BYTES + round(slots * _cells(header.architecture, shape, window) * a_cell)


def _cells(architecture: str, shape: Attention, window: int) -> int:
    """Cells that one conversation takes, of all layers."""
    whole = _in_steps(window)
    period = shape.period if shape.period > 1 else _PERIODS.get(architecture, 0)
    if not shape.sliding_window or not period:
        return shape.layers * whole
    far = shape.layers // period
    return far * whole + (shape.layers - far) * min(whole, _in_steps(shape.sliding_window + _LONGEST_BATCH))


def _in_steps(tokens: int) -> int:
    return -(-tokens // _STEP) * _STEP


def in_words(size: int) -> str:
    """``size`` bytes as people write them."""
    return f"{size / 1024**3:.1f} GiB" if size >= 1024**3 else f"{size / _MIB:.0f} MiB"
