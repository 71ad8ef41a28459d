"""A service that nobody supervises: what it completes by itself, and what it does not make up."""

from __future__ import annotations

from pathlib import Path

import pytest

from backplane.security.installation import InstallationSecrets
from backplane.settings import LlmSettings, PoolSettings, Settings
from cli import local_models
from cli.process import SUPERVISED
from cli.programs import settings_of_one_service
from workers.inference.gguf import ModelError


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(SUPERVISED, raising=False)


def test_it_joins_the_installation_of_its_data_folder() -> None:
    settings = Settings()
    made = InstallationSecrets.load_or_make(settings.data_dir)
    pepper = settings_of_one_service(settings).security.key_pepper
    assert pepper is not None
    assert pepper.get_secret_value() == made.key_pepper


def test_elsewhere_no_secret_is_made_up() -> None:
    settings = Settings()
    assert settings_of_one_service(settings) == settings
    assert not settings.data_dir.exists()


async def test_a_worker_finds_the_model_of_its_own_pool(tmp_path: Path) -> None:
    pools = {
        "local": PoolSettings(backend="xllamacpp"),
        "provider": PoolSettings(backend="openai", models=("gpt-4o-mini",)),
    }
    settings = Settings(pools=pools)
    gone = LlmSettings(model_file=str(tmp_path / "gone.gguf"))
    assert await local_models.resolved_for("provider", settings, gone, lambda what, share: None) is settings
    with pytest.raises(ModelError, match=r"gone\.gguf"):
        await local_models.resolved_for("local", settings, gone, lambda what, share: None)
