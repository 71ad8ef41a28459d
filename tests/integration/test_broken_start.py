"""What keeps `parley up` from starting is one line that says what is wrong, where, and what to do; the end is exit 78.

A taken port, a model that is not there and a second server on one data folder: see tests/e2e/test_make_server.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.running import Up

CONFIGURATION = 78


@pytest.fixture
def up(tmp_path: Path) -> Up:
    return Up(tmp_path, PARLEY_POOLS=json.dumps({"local": {"backend": "xllamacpp"}}))


def refused(up: Up, **environment: str) -> str:
    """The one line that `parley up` ends with."""
    said = up.parley("up", code=CONFIGURATION, **environment)
    *before, line = said.splitlines()
    assert line.startswith("parley: ")
    assert all(one.startswith("letting the account") for one in before), said
    return line


def test_a_file_that_is_no_model_is_named(up: Up) -> None:
    (up.folder / "mine.gguf").write_text("I am no model at all")
    said = refused(up, LLM_MODEL_FILE="mine.gguf")
    assert "mine.gguf: not a GGUF" in said


def test_a_settings_file_that_is_named_and_not_there(up: Up) -> None:
    assert "PARLEY_SETTINGS names gone.toml, which is not there" in refused(up, PARLEY_SETTINGS="gone.toml")
    assert not (up.data / "postgres").exists()


def test_every_mistake_in_the_settings_is_named_at_once_and_no_value_is(up: Up) -> None:
    (up.folder / "settings.toml").write_text('[worker]\nlease = 3\n[security]\nkey_pepper = ["a-secret-pepper"]\n')
    said = refused(up, PARLEY_PORT="a-secret-port", PARLEY_POOLS='{"local": {"backend": "gpt"}}')
    for mistake in (
        "PARLEY_PORT",
        "PARLEY_POOLS__LOCAL__BACKEND",
        "worker.lease in settings.toml",
        "security.key_pepper",
    ):
        assert mistake in said
    assert "'xllamacpp', 'scripted'" in said
    assert "a-secret" not in said
    assert not (up.data / "postgres").exists()
