"""A key that is limited to some models asks no other one, neither by name nor as the default nor by a fallback."""

from __future__ import annotations

import pytest

from backplane.settings import Settings
from command_api.admission import ModelNotAllowed, admit
from command_api.prompt import PromptBody

SETTINGS = Settings.model_validate(
    {
        "pools": {
            "local": {"backend": "scripted", "models": ["first", "second"], "fallbacks": ["third", "fourth"]},
            "other": {"backend": "scripted", "models": ["third"]},
            "another": {"backend": "scripted", "models": ["fourth"]},
        }
    }
)


@pytest.mark.parametrize(("model", "allowed"), [("first", {"second"}), (None, {"second"}), ("first", set())])
def test_another_model_is_named_and_refused(model: str | None, allowed: set[str]) -> None:
    with pytest.raises(ModelNotAllowed, match=r"'first'") as raised:
        admit(PromptBody(input="x", model=model), SETTINGS, frozenset(allowed))
    assert (raised.value.type, raised.value.field) == ("model-not-allowed", "body.model")


@pytest.mark.parametrize(
    ("allowed", "fallbacks"),
    [(None, ["third", "fourth"]), ({"first"}, []), ({"first", "fourth"}, ["fourth"])],
)
def test_fallbacks_are_those_that_it_may_ask(allowed: set[str] | None, fallbacks: list[str]) -> None:
    admitted = admit(PromptBody(input="x"), SETTINGS, None if allowed is None else frozenset(allowed))
    assert admitted.model == "first"
    assert [one.model for one in admitted.fallbacks] == fallbacks
