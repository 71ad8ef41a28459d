from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from backplane.settings import Settings
from backplane.settings.pools import PoolSettings


def pool(**given: Any) -> PoolSettings:
    return PoolSettings.model_validate({"backend": "openai"} | given)


def test_a_model_may_have_another_name_at_the_backend_or_stand_for_many() -> None:
    made = pool(models=["gpt-4o", {"fast": "gpt-4o-mini", "deep": "o3"}, "gpt-4.1*"])
    assert made.model_names == ("gpt-4o", "fast", "deep", "gpt-4.1*")
    assert [made.name_at_backend(name) for name in ("gpt-4o", "fast", "deep", "gpt-4.1-nano")] == [
        "gpt-4o",
        "gpt-4o-mini",
        "o3",
        "gpt-4.1-nano",
    ]
    assert [made.serves(name) for name in ("fast", "gpt-4.1", "gpt-4.1-nano", "gpt-4o-mini")] == [
        True,
        True,
        True,
        False,
    ]
    assert [made.listed(name) for name in ("fast", "gpt-4.1-nano", "gpt-4o-mini")] == ["fast", "gpt-4.1*", "other"]
    assert made.default_model == "gpt-4o"
    assert PoolSettings.model_validate(json.loads(made.model_dump_json())) == made


def test_a_prompt_without_a_model_gets_the_first_one_with_a_whole_name() -> None:
    settings = Settings(pools={"a": pool(models=["gpt-*"]), "b": pool(models=["own"])})
    assert settings.default_model == "own"
    assert (settings.pool_of("gpt-x"), settings.pool_of("own"), settings.pool_of("other")) == ("a", "b", None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "needs `models`"),
        ({"models": ["a*b"]}, "may end with \\*"),
        ({"models": ["a"], "base_url": "api.example.com"}, "must begin with http"),
        ({"models": ["a"], "backend": "azure"}, "needs `base_url`"),
        ({"models": ["a"], "backend": "openay"}, "'xllamacpp', 'scripted', 'openai'"),
        ({"models": ["a"], "request_per_minute": 3}, "request_per_minute"),
        ({"backend": "transformers"}, "the one model that it loads"),
        ({"backend": "transformers", "models": ["a/b", {"c": "a/d"}]}, "the one model that it loads"),
        ({"backend": "transformers", "models": ["a/*"]}, "the one model that it loads"),
        ({"backend": "transformers", "models": ["a/b"], "gpus": [0, 1]}, "uses one GPU"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        pool(**given)


def test_providers_are_waited_for_and_engines_are_not() -> None:
    assert (pool(models=["a"]).first_token_s, pool(models=["a"]).slots) == (120, 64)
    assert pool(models=["a"], slots=3).slots == 3
    for unbatched in (PoolSettings(backend="llama-cpp-python"), pool(backend="transformers", models=["a", {"b": "a"}])):
        assert (unbatched.first_token_s, unbatched.gap_s, unbatched.slots) == (None, None, 1)
    local = PoolSettings(backend="xllamacpp")
    assert (local.first_token_s, local.gap_s, local.slots) == (None, None, 8)


def test_keys_are_not_shown() -> None:
    assert "sk-secret" not in repr(pool(models=["a"], keys=["sk-secret"]))


def test_fallbacks_are_models_or_pools() -> None:
    cloud = {"backend": "openai", "models": ["gpt-4o", "gpt-4o-mini"]}
    spare = {"backend": "scripted", "models": ["small-*", "plain"]}
    chain = ["gpt-4o-mini", "spare", "small-1"]
    settings = Settings.model_validate({"pools": {"cloud": cloud | {"fallbacks": chain}, "spare": spare}})
    assert list(settings.fallbacks_of("cloud")) == [("cloud", "gpt-4o-mini"), ("spare", "plain"), ("spare", "small-1")]
    assert list(settings.fallbacks_of("spare")) == []
    with pytest.raises(
        ValidationError, match=r"\[pools.cloud\]: 'gone' is neither a pool .* the pools are cloud, spare"
    ):
        Settings.model_validate({"pools": {"cloud": cloud | {"fallbacks": ["gone"]}, "spare": spare}})
