"""The settings as a command line reads them: mistakes become one line each that name the setting, never its value."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsError

from backplane.settings import LlmSettings, Settings
from cli.failures import ConfigurationError

S = TypeVar("S", bound=BaseSettings)


def settings_file() -> Path:
    """The file that settings are read from; it need not exist unless ``PARLEY_SETTINGS`` names it."""
    return Path(os.environ.get("PARLEY_SETTINGS", "settings.toml"))


def load() -> Settings:
    """Raises ConfigurationError."""
    return _load(Settings, "PARLEY_")


def load_llm() -> LlmSettings:
    """Raises ConfigurationError."""
    return _load(LlmSettings, "LLM_")


def _load(kind: type[S], prefix: str) -> S:
    try:
        return kind()
    except ValidationError as error:
        raise ConfigurationError("; ".join(_mistakes(error, prefix))) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{settings_file()} is not valid TOML: {error}") from None
    except SettingsError as error:
        raise ConfigurationError(f"settings: {error}") from None
    except OSError as error:
        raise ConfigurationError(f"settings: {error}") from None


def _mistakes(error: ValidationError, prefix: str) -> list[str]:
    lines = []
    for mistake in error.errors(include_url=False, include_input=False, include_context=False):
        path = [str(part) for part in mistake["loc"]]
        name = prefix + "__".join(path).upper()
        file = "" if prefix == "LLM_" else f" in {settings_file()}"
        where = f"{'.'.join(path)}{file} (or {name} in the environment or .env)" if path else "settings"
        lines.append(f"{where}: {mistake['msg'].removeprefix('Value error, ')}")
    return lines
