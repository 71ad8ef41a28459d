"""The example files name every setting, with the default that the code has."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from backplane.settings import LlmSettings, PoolSettings, Settings

ROOT = Path(__file__).parents[3]


def paths(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        kind = PoolSettings if name == "pools" else field.annotation
        prefix = (name, "local") if name == "pools" else (name,)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            for path in paths(kind):
                yield (*prefix, *path)
        else:
            yield prefix


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_example_file_holds_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = Settings()
    monkeypatch.setenv("PARLEY_SETTINGS", str(ROOT / "settings.example.toml"))
    assert Settings() == defaults


def test_the_example_file_names_every_setting() -> None:
    text = (ROOT / "settings.example.toml").read_text()
    uncommented = re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE)
    named = tomllib.loads(uncommented)

    def has(path: tuple[str, ...]) -> bool:
        node: object = named
        for part in path:
            if not isinstance(node, dict) or part not in node:
                return False
            node = node[part]
        return True

    assert [path for path in paths(Settings) if not has(path)] == []


def test_the_environment_example_names_every_setting_and_no_other() -> None:
    named = set(re.findall(r"^# ((?:PARLEY|LLM)_[A-Z_0-9]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    known = {"PARLEY_" + "__".join(path).upper() for path in paths(Settings)}
    known |= {"LLM_" + name.upper() for name in LlmSettings.model_fields}
    assert named - {"PARLEY_SETTINGS", "PARLEY_SECRETS_DIR", "PARLEY_URL", "PARLEY_API_KEY"} == known
