"""What proves that a chat tool's requests are its own, as an admin gives it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from command_api.chat_tool_routes import ChatToolBody, SecretsBody

TOOL: TypeAdapter[Any] = TypeAdapter(ChatToolBody)
SECRETS: TypeAdapter[Any] = TypeAdapter(SecretsBody)
SLACK = {"kind": "slack", "signing_secret": "canary-secret", "bot_token": "xoxb-canary"}
DISCORD = {"kind": "discord", "public_key": "3b" * 32}
TEAMS = {"kind": "teams", "security_token": "Y2FuYXJ5LXNlY3JldA=="}


@pytest.mark.parametrize("secrets", [SLACK, DISCORD, TEAMS], ids=lambda secrets: secrets["kind"])
def test_they_are_shown_to_nobody(secrets: dict[str, Any]) -> None:
    assert "canary" not in repr(SECRETS.validate_python(secrets))
    assert "canary" not in repr(TOOL.validate_python({"name": "desk", **secrets}))


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
    for adapter, body in ((SECRETS, given), (TOOL, {"name": "desk", **given})):
        with pytest.raises(ValidationError):
            adapter.validate_python(body)


def test_only_teams_may_tell_its_token_later() -> None:
    assert TOOL.validate_python({"kind": "teams", "name": "desk"}).security_token is None
    for kind in ("slack", "discord"):
        with pytest.raises(ValidationError):
            TOOL.validate_python({"kind": kind, "name": "desk"})
