"""Who is on this machine, and what a client of an earlier system has for a key."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from pydantic import SecretStr
from starlette.requests import HTTPConnection

from backplane.security.api_key import ApiKey
from backplane.settings import Settings
from backplane.settings.doors import DoorSettings
from gateway.callers import is_local
from gateway.earlier.callers import holds_as_before, spoken
from gateway.earlier.joining import signs_up
from gateway.ports import GatewayPorts

KEY = ApiKey("0123456789abcdef", "0123456789abcdef" * 4).reveal()


def connection(
    headers: dict[str, str], *, peer: str = "127.0.0.1", query: str = "", origins: tuple[str, ...] = ()
) -> HTTPConnection:
    ports = GatewayPorts(Settings.model_construct(cors_origins=origins))
    return HTTPConnection(
        {
            "type": "websocket",
            "path": "/gpt-socket/clerk",
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": (peer, 4711),
            "app": SimpleNamespace(state=SimpleNamespace(gateway=ports)),
        }
    )


@pytest.mark.parametrize(
    ("headers", "peer", "origins", "local"),
    [
        ({"host": "localhost:8000"}, "127.0.0.1", (), True),
        ({"host": "[::1]:8000"}, "::1", (), True),
        ({"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"}, "127.0.0.1", (), True),
        ({"host": "localhost:8000", "origin": "http://localhost:3000"}, "127.0.0.1", ("http://localhost:3000",), True),
        ({"host": "localhost:8000", "sec-fetch-site": "none"}, "127.0.0.1", (), True),
        ({"host": "localhost:8000"}, "10.0.0.7", (), False),
        ({"host": "evil.example"}, "127.0.0.1", (), False),
        ({"host": "localhost:8000", "origin": "https://evil.example"}, "127.0.0.1", (), False),
        ({"host": "localhost:8000", "origin": "http://localhost:3000"}, "127.0.0.1", (), False),
        ({"host": "localhost:8000", "origin": "null"}, "127.0.0.1", (), False),
        ({"host": "localhost:8000", "sec-fetch-site": "cross-site"}, "127.0.0.1", (), False),
    ],
)
def test_who_is_on_this_machine(headers: dict[str, str], peer: str, origins: tuple[str, ...], local: bool) -> None:
    assert is_local(connection(headers, peer=peer, origins=origins)) is local


@pytest.mark.parametrize(
    ("headers", "query", "given"),
    [
        ({"authorization": f"Bearer {KEY}"}, "", KEY),
        ({"authorization": KEY}, "", KEY),
        ({"authorization": "Basic abc"}, "", None),
        ({}, f"key={KEY}", KEY),
        ({"x-api-key": KEY}, "", KEY),
        ({"sec-websocket-protocol": f"chat, {KEY}"}, "", KEY),
        ({"sec-websocket-protocol": "chat"}, "", None),
        ({}, "", None),
    ],
)
def test_where_a_key_may_stand(headers: dict[str, str], query: str, given: str | None) -> None:
    assert holds_as_before("conversations.use").given(connection(headers, query=query)) == given


@pytest.mark.parametrize(
    ("offered", "answered"),
    [(f"{KEY}, chat", "chat"), (KEY, KEY), ("chat, other", "chat")],
)
def test_which_subprotocol_is_spoken(offered: str, answered: str) -> None:
    assert spoken(connection({"sec-websocket-protocol": offered})) == answered
    assert spoken(connection({})) is None


def test_who_signs_up_without_a_key_comes_by_that_of_the_settings() -> None:
    admin_key = ApiKey("0123456789abcdef", "0123456789abcdef" * 4).reveal()
    comes = signs_up("users.manage")
    nobody = connection({})
    assert comes.given(nobody) is None
    nobody.app.state.gateway = GatewayPorts(
        Settings.model_construct(doors=DoorSettings(admin_key=SecretStr(admin_key)))
    )
    assert comes.given(nobody) == admin_key
    somebody = connection({"authorization": KEY})
    somebody.app.state.gateway = nobody.app.state.gateway
    assert comes.given(somebody) == KEY
