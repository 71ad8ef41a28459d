"""A pool's options for the local engine: what is refused before anything is loaded."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from backplane.settings import PoolSettings


def test_the_defaults_leave_everything_to_the_engine() -> None:
    pool = PoolSettings(backend="xllamacpp")
    assert (pool.gpus, pool.tensor_split, pool.flash_attention, pool.kv_cache_type) == (None, (), "auto", "f16")


def test_no_gpu_is_not_the_same_as_none_named() -> None:
    dumped = PoolSettings(backend="xllamacpp", gpus=()).model_dump(mode="json", exclude_none=True)
    assert PoolSettings(**dumped).gpus == ()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"gpus": [-1]}, "greater than or equal to 0"),
        ({"gpus": [0, 1, 0]}, "a GPU is named twice"),
        ({"tensor_split": [0, 0]}, "no share above 0"),
        ({"tensor_split": [1, -1]}, "greater than or equal to 0"),
        ({"tensor_split": ["inf"]}, "finite"),
        ({"tensor_split": [3, 1], "gpus": [0]}, "tensor_split has 2 shares, and gpus names 1; give one share for each"),
        ({"kv_cache_type": "q8_0", "flash_attention": "off"}, 'needs flash attention; set flash_attention = "on"'),
        ({"kv_cache_type": "q2_k"}, "'q8_0'"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as raised:
        PoolSettings(backend="xllamacpp", **given)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    "given",
    [
        {"tensor_split": [3, 1], "gpus": [1, 0]},
        {"tensor_split": [3, 1]},
        {"kv_cache_type": "q4_0", "flash_attention": "on"},
        {"kv_cache_type": "q4_0"},
        {"flash_attention": "off"},
    ],
)
def test_what_fits_is_taken(given: dict[str, Any]) -> None:
    PoolSettings(backend="xllamacpp", **given)


def test_several_files_are_asked_for_by_their_names() -> None:
    files = {"small": "models/small.gguf", "big": "models/big.gguf"}
    pool = PoolSettings.model_validate({"backend": "xllamacpp", "model_files": files, "memory_limit": "1.5GiB"})
    assert pool.models == ("small", "big")
    assert pool.memory_limit == 1.5 * 1024**3
    assert PoolSettings.model_validate_json(pool.model_dump_json()) == pool
    named = PoolSettings.model_validate({"backend": "xllamacpp", "model_files": files, "models": [{"chat": "big"}]})
    assert named.model_names == ("chat",)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"memory_limit": "8GiB"}, "memory_limit is for a pool with several `model_files`"),
        ({"model_files": {"a": "a.gguf"}, "model_file": "b.gguf"}, "either `model_file` or `model_files`"),
        ({"model_files": {"a": "a.gguf"}, "models": ["a", "b"]}, "model 'b' has no file; `model_files` names a"),
        ({"model_files": {"a": "a.gguf"}, "models": ["a*"]}, "model 'a*' has no file"),
        ({"model_files": {"a": "a.gguf"}, "models": [{"b": "c"}]}, "model 'b' has no file"),
        ({"model_files": {"a": "a.gguf"}, "backend": "scripted"}, "the backend scripted has no `model_files`"),
        ({"model_files": {"a": "a.gguf"}, "memory_limit": "much"}, "could not parse value and unit"),
    ],
)
def test_files_and_limits_that_do_not_fit_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as raised:
        PoolSettings.model_validate({"backend": "xllamacpp", **given})
    assert says in str(raised.value)
