"""Settings from files, one a secret, as container engines mount them."""

from __future__ import annotations

from pathlib import Path

import pytest

from backplane.settings import Settings
from cli import configuration
from cli.failures import ConfigurationError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "secrets"
    made.mkdir()
    (made / "PARLEY_POSTGRES__ROLE_URLS__WORKER").write_text("postgresql://parley_worker:from-a-file@db/parley\n")
    (made / "PARLEY_REDIS__URL").write_text("redis://from-a-file")
    (made / "provider_key").write_text("another file's")
    monkeypatch.setenv("PARLEY_SECRETS_DIR", str(made))
    return made


def test_a_file_that_is_called_as_a_variable_is_that_setting() -> None:
    settings = Settings()
    assert settings.redis.url is not None
    assert settings.redis.url.get_secret_value() == "redis://from-a-file"
    worker = settings.postgres.role_urls.worker
    assert worker is not None
    assert worker.get_secret_value() == "postgresql://parley_worker:from-a-file@db/parley"


def test_the_environment_wins_over_a_file_and_a_file_over_the_settings_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "settings.toml").write_text('[redis]\nurl = "redis://toml"\n[postgres]\npool_size = 7\n')
    settings = Settings()
    assert settings.redis.url is not None
    assert settings.redis.url.get_secret_value() == "redis://from-a-file"
    assert settings.postgres.pool_size == 7
    assert settings.postgres.role_urls.worker is not None
    monkeypatch.setenv("PARLEY_REDIS__URL", "redis://environment")
    settings = Settings()
    assert settings.redis.url is not None
    assert settings.redis.url.get_secret_value() == "redis://environment"


def test_no_folder_is_read_that_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PARLEY_SECRETS_DIR")
    assert Settings().redis.url is None


def test_a_folder_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PARLEY_SECRETS_DIR", str(tmp_path / "gone"))
    with pytest.raises(ConfigurationError, match="gone"):
        configuration.load()


def test_a_wrong_secret_is_named_and_not_shown(folder: Path) -> None:
    (folder / "PARLEY_SECURITY__MASTER_KEY").write_text("hunter2")
    with pytest.raises(ConfigurationError, match="PARLEY_SECURITY__MASTER_KEY") as raised:
        configuration.load()
    assert "hunter2" not in str(raised.value)
