"""Which doors are open."""

from __future__ import annotations

import pytest

from backplane.settings.doors import DoorSettings
from gateway import anthropic, doors, openai


@pytest.mark.parametrize(
    ("shut", "left"),
    [
        (set(), [anthropic.router, openai.router]),
        ({"anthropic"}, [openai.router]),
        ({"openai"}, [anthropic.router]),
        ({"anthropic", "openai"}, []),
    ],
)
def test_each_door_can_be_shut(shut: set[str], left: list[object]) -> None:
    found = doors.of(DoorSettings.model_validate(dict.fromkeys(shut, False)))
    assert [door.router for door in found] == left
