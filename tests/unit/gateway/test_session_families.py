"""Which model a client of sessions means."""

from __future__ import annotations

import pytest

from backplane.settings import PoolSettings, Settings
from backplane.settings.doors import DoorSettings
from backplane.web.problems import Problem
from gateway.earlier.sessions.families import Family, keyed_by, model_of, pools_of
from gateway.ports import GatewayPorts


def ports(**backends: str) -> GatewayPorts:
    """With a pool of each backend, whose model has the pool's name, and an alias of the first."""
    pools = {
        name: PoolSettings.model_validate({"backend": backend, "models": [f"{name}-model"], "region": "us-east-1"})
        for name, backend in backends.items()
    }
    return GatewayPorts(Settings(pools=pools, doors=DoorSettings(aliases={"claude-old": ""})))


BOTH = {"local": "scripted", "gpt": "openai", "claude": "anthropic", "bed": "bedrock"}


@pytest.mark.parametrize(
    ("family", "name", "model"),
    [
        ("openai", "gpt-model", "gpt-model"),
        ("openai", None, "gpt-model"),
        ("anthropic", None, "claude-model"),
        ("anthropic", "bed-model", "bed-model"),
        ("anthropic", "claude-old", "local-model"),
        # Admission says what there is.
        ("openai", "gpt-9", "gpt-9"),
    ],
)
def test_it_is_one_of_the_familys_or_what_the_operator_says(family: Family, name: str | None, model: str) -> None:
    assert model_of(ports(**BOTH), family, name) == model


@pytest.mark.parametrize(
    ("backends", "family", "name"),
    [
        (BOTH, "openai", "claude-model"),
        (BOTH, "anthropic", "local-model"),
        ({"local": "scripted"}, "openai", None),
        ({"local": "scripted", "gpt": "openai"}, "anthropic", "claude-9"),
    ],
)
def test_a_family_that_does_not_have_it_is_named(backends: dict[str, str], family: Family, name: str | None) -> None:
    with pytest.raises(Problem) as refused:
        model_of(ports(**backends), family, name)
    assert refused.value.status == 422
    assert refused.value.extra["errors"][0]["field"] == "query.gpt_type"
    assert family in refused.value.detail


def test_pools_are_of_the_provider_that_they_ask() -> None:
    settings = ports(**BOTH).settings
    assert (pools_of(settings, "openai"), pools_of(settings, "anthropic")) == (["gpt"], ["claude", "bed"])


def test_a_key_is_for_the_provider_itself_and_for_a_pool_that_is_called_as_it() -> None:
    elsewhere = "https://llm.example.com/v1"
    pools = {
        "openai": PoolSettings(backend="openai", models=("a",), base_url=elsewhere),
        "gpt": PoolSettings(backend="openai", models=("b",)),
        "vllm": PoolSettings(backend="openai", models=("c",), base_url=elsewhere),
        "azure": PoolSettings(backend="azure", models=("d",), base_url=elsewhere, api_version="v1"),
        "claude": PoolSettings(backend="anthropic", models=("e",)),
        "proxy": PoolSettings(backend="anthropic", models=("f",), base_url=elsewhere),
        "bed": PoolSettings(backend="bedrock", models=("g",), region="us-east-1"),
        "anthropic": PoolSettings(backend="bedrock", models=("h",), region="us-east-1"),
    }
    settings = Settings(pools=pools)
    assert (keyed_by(settings, "openai"), keyed_by(settings, "anthropic")) == (["openai", "gpt"], ["claude"])
