"""Which doors are open."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute, APIWebSocketRoute

from backplane.settings.doors import DoorSettings
from gateway import doors


def paths(settings: DoorSettings) -> Iterator[str]:
    for door in doors.of(settings):
        yield from _paths(door.router)


def _paths(router: APIRouter) -> Iterator[str]:
    """Sockets', too, which no OpenAPI document names."""
    for route in router.routes:
        if isinstance(route, APIRoute | APIWebSocketRoute):
            yield route.path.split("/{")[0]
        else:
            yield from _paths(route.original_router)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "its"),
    [
        ("openai", {"/v1/chat/completions", "/v1/responses", "/v1/embeddings"}),
        ("anthropic", {"/v1/messages"}),
        ("chat_tools", {"/chat-tools"}),
        ("personas", {"/gpt-socket", "/gpt", "/toil", "/describe", "/embedding/query", "/platform/stats"}),
        ("prompt", {"/prompt"}),
        ("characters", {"/signup/", "/chat/", "/create_npc/", "/chat_npc/", "/rag/", "/reindex/"}),
        ("sessions", {"/v1/auth/login", "/v1/auth/apikeys", "/v1/gpt/sessions"}),
    ],
)
def test_each_has_a_switch_of_its_own(name: str, its: set[str]) -> None:
    everything = set(paths(DoorSettings()))
    without = set(paths(DoorSettings.model_validate({name: False})))
    assert its <= everything
    assert not its & without
    assert without < everything
