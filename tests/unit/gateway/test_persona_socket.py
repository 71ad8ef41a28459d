"""How an answer on the personas' socket ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
from fastapi import WebSocket
from starlette.requests import HTTPConnection

from backplane.settings import Settings
from backplane.settings.doors import DoorSettings
from backplane.web.problems import Problem
from gateway.earlier.personas.prompts import conversation_of, session_in_front
from gateway.earlier.personas.socket import Conversation
from gateway.ports import GatewayPorts

ID = UUID("01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d10")


class Socket(HTTPConnection):
    """Of a client without a key, which keeps what it is sent."""

    def __init__(self, doors: DoorSettings) -> None:
        ports = GatewayPorts(Settings.model_construct(doors=doors))
        app = SimpleNamespace(state=SimpleNamespace(gateway=ports, authenticator=None))
        super().__init__({"type": "websocket", "path": "/", "query_string": b"", "headers": [], "app": app})
        self.sent: list[str] = []

    async def send_text(self, text: str) -> None:
        self.sent.append(text)


@pytest.mark.parametrize(
    ("bare_end", "begun", "end"),
    [(False, ID, f"<END urn:uuid:{ID}>"), (True, ID, "<END>"), (False, None, "<END>")],
)
async def test_the_end_names_the_session_where_there_is_one(bare_end: bool, begun: UUID | None, end: str) -> None:
    socket = Socket(DoorSettings(bare_end=bare_end))
    conversation = Conversation(cast(WebSocket, socket), "clerk")
    conversation.id = begun
    await conversation.answer("Hello!")
    assert socket.sent == ["Error: Send an API key: `Authorization: Bearer parley_…`.", end]


@pytest.mark.parametrize("session", [str(ID), f"urn:uuid:{ID}", f" {ID} "])
def test_a_session_is_a_conversation(session: str) -> None:
    assert conversation_of(session) == ID
    found: Any = session_in_front(f"|SESSION|{session}|/SESSION| Go on.")
    assert found == (ID, "Go on.")


def test_a_prompt_without_a_session_stays_as_it_is() -> None:
    for text in ("Go on.", "Say |SESSION|a|/SESSION|"):
        assert session_in_front(text) == (None, text)
    with pytest.raises(Problem, match=r"no `\|/SESSION\|`"):
        session_in_front("|SESSION|without an end")
