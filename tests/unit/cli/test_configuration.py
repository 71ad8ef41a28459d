from __future__ import annotations

from pathlib import Path

import pytest

from cli import configuration
from cli.failures import EX_CONFIG, ConfigurationError


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("PARLEY_PORT", "many", "port in settings.toml (or PARLEY_PORT in the environment or .env)"),
        ("PARLEY_WORKER__LEASE_S", "-1", "PARLEY_WORKER__LEASE_S"),
        ("PARLEY_POOLS", "{", "pools"),
        ("PARLEY_POOLS__Big__BACKEND", "nothing", "PARLEY_POOLS__BIG__BACKEND"),
    ],
)
def test_a_wrong_value_is_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as raised:
        configuration.load()
    assert says in str(raised.value)
    assert raised.value.exit_code == EX_CONFIG


def test_a_secret_in_a_wrong_place_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_POSTGRES", '{"url": "postgresql://a:hunter2@b/c", "unknown": "hunter2"}')
    with pytest.raises(ConfigurationError) as raised:
        configuration.load()
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("name", ["MASTER_KEY", "SIGNING_KEY"])
def test_a_key_of_another_length_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"PARLEY_SECURITY__{name}", "hunter2")
    with pytest.raises(ConfigurationError, match=rf"PARLEY_SECURITY__{name}.*64 hexadecimal digits") as raised:
        configuration.load()
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(("days", "longer"), [("1", "PARLEY_BUS__RETENTION_HOURS"), ("3", None)])
def test_lines_are_kept_longer_than_they_may_come_again(
    monkeypatch: pytest.MonkeyPatch, days: str, longer: str | None
) -> None:
    monkeypatch.setenv("PARLEY_RECORD__KEEP_DAYS", days)
    if longer is not None:
        monkeypatch.setenv(longer, "100")
    with pytest.raises(ConfigurationError, match=r"record\.keep_days: . days are no longer than .*; keep more days"):
        configuration.load()
    monkeypatch.setenv("PARLEY_RECORD__KEEP_DAYS", "5")
    assert configuration.load().record.keep_days == 5


def test_a_broken_settings_file_is_named(nowhere: Path) -> None:
    (nowhere / "settings.toml").write_text("port = ")
    with pytest.raises(ConfigurationError, match=r"settings\.toml is not valid TOML"):
        configuration.load()


def test_a_settings_file_that_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_SETTINGS", "gone.toml")
    with pytest.raises(ConfigurationError, match=r"gone\.toml"):
        configuration.load()


def test_a_wrong_model_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_CONTEXT_WINDOW", "8")
    with pytest.raises(ConfigurationError, match="LLM_CONTEXT_WINDOW"):
        configuration.load_llm()
