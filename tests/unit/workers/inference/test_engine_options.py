"""Options as the real parameters of the engine have them; no model is loaded."""

from __future__ import annotations

from typing import Any

import pytest
import xllamacpp

from backplane.settings import PoolSettings
from workers.inference.engine_build import Engine, install_command
from workers.inference.engine_options import EngineOptions
from workers.inference.port import BackendUnavailable


def applied(options: EngineOptions) -> Any:
    parameters = xllamacpp.CommonParams()
    options.apply(xllamacpp, parameters)
    return parameters


def test_the_defaults_are_the_engines_own() -> None:
    ours, own = applied(EngineOptions.of("local", PoolSettings(backend="xllamacpp"))), xllamacpp.CommonParams()
    for name in ("flash_attn_type", "cache_type_k", "cache_type_v", "tensor_split"):
        assert getattr(ours, name) == getattr(own, name), name


def test_shares_are_filled_up_to_what_the_engine_wants() -> None:
    split = applied(EngineOptions(tensor_split=(3.0, 1.0))).tensor_split
    assert split[:2] == [3.0, 1.0]
    assert not any(split[2:])


@pytest.mark.parametrize(("asked", "number"), [("auto", -1), ("on", 1), ("off", 0)])
def test_flash_attention(asked: Any, number: int) -> None:
    assert applied(EngineOptions(flash_attention=asked)).flash_attn_type == number


@pytest.mark.parametrize(("asked", "number", "flash"), [("q8_0", 8, 1), ("q4_0", 2, 1), ("bf16", 30, -1)])
def test_keys_and_values_have_one_type_and_a_quantised_one_turns_flash_attention_on(
    asked: Any, number: int, flash: int
) -> None:
    parameters = applied(EngineOptions(kv_cache_type=asked))
    assert (parameters.cache_type_k, parameters.cache_type_v) == (number, number)
    assert parameters.flash_attn_type == flash


def test_shares_for_gpus_that_the_engine_does_not_see() -> None:
    with pytest.raises(BackendUnavailable, match=r"\[pools.big\].tensor_split has 17 shares.* take it out") as raised:
        EngineOptions("big", tensor_split=(1.0,) * 17).check(xllamacpp)
    assert raised.value.reason == "gpu_missing"


def test_the_installed_build_says_what_it_is() -> None:
    engine = Engine.installed(xllamacpp)
    assert engine.version == xllamacpp.__version__
    assert "CPU" in engine.backends


def test_the_line_that_installs_a_build_names_it_and_this_environment() -> None:
    assert install_command("cuda", "2026.10").endswith("/whl/cu128 xllamacpp==2026.10")
    assert install_command("vulkan").endswith("/whl/vulkan xllamacpp")
