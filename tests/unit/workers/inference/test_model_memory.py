from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.inference.gguf import Attention, GgufHeader
from workers.inference.model_memory import ENGINE_BYTES, in_words, needed_bytes

PLAIN = Attention(layers=32, heads=8, key_length=128, value_length=128)
"""Of Llama 3.1 8B, for one: 128 KiB a token with f16."""


def cache(attention: Attention, architecture: str = "llama", **given: Any) -> int:
    header = GgufHeader(3, architecture, None, 131072, True, 10, attention)
    asked = {"window": 4096, "slots": 1, "kv_cache_type": "f16", **given}
    return needed_bytes(header, 10, **asked) - ENGINE_BYTES - 10


def test_a_cache_holds_keys_and_values_of_each_layer_for_each_slot() -> None:
    assert cache(PLAIN) == 4096 * 128 * 1024
    assert cache(PLAIN, slots=8) == 8 * cache(PLAIN)


@pytest.mark.parametrize(("kind", "share"), [("f32", 2), ("bf16", 1), ("q8_0", 34 / 64), ("q4_0", 18 / 64)])
def test_the_cache_type_counts(kind: str, share: float) -> None:
    assert cache(PLAIN, kv_cache_type=kind) == share * cache(PLAIN)


def test_layers_with_a_sliding_window_keep_less_where_it_is_known_which() -> None:
    sliding = Attention(18, 1, 256, 256, sliding_window=512)
    a_layer = 256 * 2 * 2
    assert cache(sliding, "gemma3") == (3 * 4096 + 15 * 1024) * a_layer
    assert cache(sliding, "unheard-of") == 18 * 4096 * a_layer
    assert cache(Attention(18, 1, 256, 256, 512, period=2), "unheard-of") == (9 * 4096 + 9 * 1024) * a_layer


@given(window=st.integers(16, 200_000), slots=st.integers(1, 64), sliding=st.integers(0, 5000))
def test_more_of_anything_never_takes_less(window: int, slots: int, sliding: int) -> None:
    shape = Attention(18, 1, 256, 256, sliding)
    taken = cache(shape, "gemma3", window=window, slots=slots)
    assert taken <= cache(shape, "gemma3", window=window + 1, slots=slots)
    assert taken < cache(shape, "gemma3", window=window, slots=slots + 1)


def test_sizes_in_words() -> None:
    assert (in_words(300 * 1024**2), in_words(3 * 1024**3 // 2)) == ("300 MiB", "1.5 GiB")
