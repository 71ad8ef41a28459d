"""The page of settings has every setting, under the names that the settings are really read by."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic_settings import EnvSettingsSource

from backplane.settings import LlmSettings, Settings
from handbook.settings_page import page, sections

ROOT = Path(__file__).parents[3]
ROWS = re.findall(r"^\| `(\w+)` \| `([A-Z_<>]+)` \| (.*) \| (.*) \| (.*) \|$", page(), re.MULTILINE)


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_it_has_every_setting_that_the_environment_example_has() -> None:
    named = set(re.findall(r"^# ((?:PARLEY|LLM)_[A-Z_0-9]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    shown = {variable.replace("POOLS__<NAME>", "POOLS__LOCAL") for _, variable, *_ in ROWS}
    # Those are one name there, with a table in JSON; PARLEY_SETTINGS and the client's are no settings.
    missing = {name for name in named - shown if not name.startswith(("PARLEY_KNOWLEDGE__", "PARLEY_OIDC"))}
    assert missing <= {"PARLEY_SETTINGS", "PARLEY_SECRETS_DIR", "PARLEY_URL", "PARLEY_API_KEY"}


def test_every_setting_says_what_it_is() -> None:
    assert len(ROWS) > 100
    assert [variable for _, variable, kind, _, meaning in ROWS if not kind.strip() or not meaning.strip()] == []


@pytest.mark.parametrize(
    "variable", [variable for _, variable, *_ in ROWS if variable.startswith("PARLEY_")], ids=lambda name: str(name)
)
def test_the_environment_is_read_by_the_names_that_are_shown(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = variable.replace("<NAME>", "MINE")
    monkeypatch.setenv(name, "1")
    found = EnvSettingsSource(Settings)()
    for part in name.removeprefix("PARLEY_").lower().split("__"):
        found = found[part]
    assert json.dumps(found) in ("1", '"1"')


def test_defaults_are_those_of_the_code() -> None:
    shown = {variable: default for _, variable, _, default, _ in ROWS}
    assert shown["PARLEY_WORKER__LEASE_S"] == f"`{Settings().worker.lease_s}`"
    assert shown["PARLEY_DOORS__OPENAI"] == "`true`"
    assert shown["PARLEY_POOLS__<NAME>__BACKEND"] == "needed"
    assert shown["LLM_GPU_LAYERS"] == f"`{LlmSettings().gpu_layers}`"


def test_no_default_is_a_secret_or_an_object() -> None:
    assert [row for row in ROWS if re.search(r"\w+\(|SecretStr|Settings", row[3])] == []


def test_each_section_of_the_example_file_is_one_of_the_page() -> None:
    text = (ROOT / "settings.example.toml").read_text()
    known = {".".join(section.path).replace("<name>", "local") for section in sections()}
    assert set(re.findall(r"^\[([\w.]+)\]", text, re.MULTILINE)) - known <= {"oidc"}
