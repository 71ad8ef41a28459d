"""Which doors are open."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from backplane.settings.doors import DoorSettings
from gateway import doors


def paths(settings: DoorSettings) -> Iterator[str]:
    app = FastAPI()
    for door in doors.of(settings):
        app.include_router(door.router)
    for path in app.openapi()["paths"]:
        yield path.split("/{")[0]


@pytest.mark.parametrize(
    ("name", "its"),
    [
        ("openai", {"/v1/chat/completions", "/v1/responses", "/v1/embeddings"}),
        ("anthropic", {"/v1/messages"}),
        ("chat_tools", {"/chat-tools"}),
        ("personas", {"/gpt", "/toil", "/describe", "/embedding/query", "/platform/stats"}),
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
