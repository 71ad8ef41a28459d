"""What proves that a chat tool's requests are its own, as an admin gives it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from command_api.chat_tool_routes import ChatToolBody, SecretsBody

SLACK = {"kind": "slack", "signing_secret": "canary-secret", "bot_token": "xoxb-canary"}
DISCORD = {"kind": "discord", "public_key": "3b" * 32}
TEAMS = {"kind": "teams", "security_token": "Y2FuYXJ5LXNlY3JldA=="}


@pytest.mark.parametrize("secrets", [SLACK, DISCORD, TEAMS], ids=lambda secrets: secrets["kind"])
def test_they_are_shown_to_nobody(secrets: dict[str, Any]) -> None:
    for kind, given in ((SecretsBody, secrets), (ChatToolBody, {"name": "desk", **secrets})):
        adapter: TypeAdapter[Any] = TypeAdapter(kind)
        assert "canary" not in repr(adapter.validate_python(given))


@pytest.mark.parametrize(
    "given",
    [
        TEAMS | {"security_token": ""},
        TEAMS | {"security_token": "no base64!"},
        DISCORD | {"public_key": "3b" * 31},
        DISCORD | {"public_key": "zz" * 32},
        SLACK | {"signing_secret": ""},
        SLACK | {"bot_token": None},
        SLACK | {"public_key": "3b" * 32},
    ],
)
def test_what_proves_nothing_is_refused(given: dict[str, Any]) -> None:
    for kind, body in ((SecretsBody, given), (ChatToolBody, {"name": "desk", **given})):
        adapter: TypeAdapter[Any] = TypeAdapter(kind)
        with pytest.raises(ValidationError):
            adapter.validate_python(body)


def test_only_teams_may_tell_its_token_later() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(ChatToolBody)
    assert adapter.validate_python({"kind": "teams", "name": "desk"}).security_token is None
    for kind in ("slack", "discord"):
        with pytest.raises(ValidationError):
            adapter.validate_python({"kind": kind, "name": "desk"})
