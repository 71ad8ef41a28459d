"""The tables of endpoints and doors, and the tree of folders, leave nothing out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from backplane.settings.doors import DoorSettings
from gateway import doors
from tests.unit.backplane.test_permissions import flattened, routes

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DOORS = (ROOT / "docs/reference/doors.md").read_text()
SWITCHES = ("openai", "anthropic", "chat_tools", "personas", "prompt", "characters", "sessions")


def place(path: str) -> str:
    """What a table has to name of a path: `/v1/prompts` of what is under it, and `/chat` of `/chat/{id}`."""
    found = re.match(r"(?:/v1)?/[^/]+", path)
    assert found is not None, path
    return found[0]


def named(text: str) -> set[str]:
    return {place(path) for path in re.findall(r"(?<![\w…}])/[a-z][\w/-]*", text) if path != "/v1"}


def test_every_endpoint_is_in_the_readme() -> None:
    table = README.partition("## Endpoints\n")[2].partition("\n## ")[0]
    assert len(table.splitlines()) > 40
    assert {place(name.split(" ")[1]) for name, _ in routes()} - named(table) == set()


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_path_of_a_door_is_in_the_rows_of_its_setting(switch: str) -> None:
    only = DoorSettings.model_validate({one: one == switch for one in SWITCHES})
    rows = "\n".join(row for row in DOORS.splitlines() if f"| `doors.{switch}` |" in row)
    paths = {place(route.path) for door in doors.of(only) for route in flattened(door.router)}
    assert paths
    assert paths == named(re.sub(r"\]\([^)]*\)", "]", rows))


def test_every_package_is_in_the_readme() -> None:
    tree = README.partition("## Where things are\n")[2].partition("\n## ")[0]
    told = set(re.findall(r"^    (\w+)/ ", tree, re.MULTILINE))
    packages = {file.parent.name for file in ROOT.glob("*/__init__.py")}
    assert len(packages) > 5
    assert packages - told == set()
    assert [name for name in told if not (ROOT / name).is_dir()] == []
