"""What the earlier systems called their settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic_settings import SettingsError

from backplane.settings import LlmSettings, Settings

NAMES = (
    *("ADMIN_KEY", "DATABASE_URL", "LOG_LEVEL", "MODEL_NAME", "RATE_LIMIT", "LLAMA_MODEL_FILE", "LLAMA_CONTEXT_SIZE"),
    *("TRITON_SERVER_URL", "TRITON_SERVER_PORT", "TRITON_SERVER_MODEL_NAME", "LLM_MODEL_FILE", "LLM_CONTEXT_WINDOW"),
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Without settings of any kind."""
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_they_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "ADMIN_KEY": "parley_a",
        "RATE_LIMIT": "60",
        "DATABASE_URL": "postgresql+asyncpg://u:p@db/parley",
        "LOG_LEVEL": "warn",
        "MODEL_NAME": "meta-llama/Meta-Llama-3.1-8B-Instruct",
    }.items():
        monkeypatch.setenv(name, value)
    found = Settings()
    assert found.doors.admin_key is not None
    assert found.doors.admin_key.get_secret_value() == "parley_a"
    assert found.doors.rate_limit == 60
    assert found.postgres.url is not None
    assert found.postgres.url.get_secret_value() == "postgresql://u:p@db/parley"
    assert found.log_level == "WARNING"
    assert list(found.pools) == ["local"]
    assert found.default_model == "meta-llama/Meta-Llama-3.1-8B-Instruct"


def test_our_own_go_before_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "settings.toml").write_text('log_level = "ERROR"\n[doors]\nrate_limit = 7\nopenai = false\n')
    (folder / ".env").write_text("PARLEY_POSTGRES__URL=postgresql://ours\nADMIN_KEY=of the file\n")
    monkeypatch.setenv("DATABASE_URL", "sqlite:///theirs.db")
    monkeypatch.setenv("LOG_LEVEL", "loudly")
    monkeypatch.setenv("RATE_LIMIT", "60")
    monkeypatch.setenv("MODEL_NAME", "theirs")
    monkeypatch.setenv("PARLEY_POOLS", '{"ours": {"backend": "scripted", "models": ["script"]}}')
    found = Settings()
    assert found.postgres.url is not None
    assert found.postgres.url.get_secret_value() == "postgresql://ours"
    assert found.log_level == "ERROR"
    assert (found.doors.rate_limit, found.doors.openai) == (7, False)
    assert found.doors.admin_key is not None
    assert found.doors.admin_key.get_secret_value() == "of the file"
    assert list(found.pools) == ["ours"]


@pytest.mark.parametrize(
    ("url", "port", "base_url"),
    [
        ("triton", "8001", "grpc://triton:8001"),
        ("grpc://triton:9001", "8001", "grpc://triton:9001"),
        ("https://triton/", "8001", "grpcs://triton:8001"),
        ("triton", None, "grpc://triton"),
    ],
)
def test_a_triton_server(monkeypatch: pytest.MonkeyPatch, url: str, port: str | None, base_url: str) -> None:
    monkeypatch.setenv("TRITON_SERVER_URL", url)
    monkeypatch.setenv("TRITON_SERVER_MODEL_NAME", "ensemble")
    if port is not None:
        monkeypatch.setenv("TRITON_SERVER_PORT", port)
    pool = Settings().pools["local"]
    assert (pool.backend, pool.base_url, pool.models) == ("triton", base_url, ("ensemble",))


@pytest.mark.parametrize(
    ("name", "value"), [("LOG_LEVEL", "loudly"), ("DATABASE_URL", "sqlite:///a.db"), ("TRITON_SERVER_URL", "triton")]
)
def test_what_cannot_be_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name) as told:
        Settings()
    assert name == "TRITON_SERVER_URL" or value not in str(told.value)


def test_the_local_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_MODEL_FILE", "theirs.gguf")
    monkeypatch.setenv("LLAMA_CONTEXT_SIZE", "2048")
    found = LlmSettings()
    assert (found.model_file, found.context_window) == ("theirs.gguf", 2048)
    monkeypatch.setenv("LLM_MODEL_FILE", "ours.gguf")
    assert LlmSettings().model_file == "ours.gguf"
    assert LlmSettings(model_file="said.gguf").model_file == "said.gguf"
