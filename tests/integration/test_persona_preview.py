from __future__ import annotations

from pathlib import Path

import pytest

from backplane.settings import Settings
from cli import personas
from cli.failures import CommandError
from event_schemas.personas import PersonaContent
from tests.unit.workers.inference.gguf_files import language_model


async def test_a_file_is_previewed_for_the_model_that_a_start_would_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "clever.gguf").write_bytes(language_model())
    settings = Settings(data_dir=tmp_path / "data", models_dir=tmp_path / "models")
    assert settings.default_model is None
    shown = await personas.previewed(settings, PersonaContent(system="Be kind."), [], "Hi")
    assert (shown.model, [one.text for one in shown.messages]) == ("clever", ["Be kind.", "Hi"])
    with pytest.raises(CommandError, match="other"):
        await personas.previewed(settings, PersonaContent(system="Be kind.", model="other"), [], "Hi")
