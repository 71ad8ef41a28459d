"""Names in the environment that the earlier systems gave to what is a setting here. Parley's own go before them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsError

_LEVELS = {"DEBUG": "DEBUG", "INFO": "INFO", "WARNING": "WARNING", "WARN": "WARNING", "ERROR": "ERROR"}

_POSTGRES = ("postgresql://", "postgres://", "postgresql+asyncpg://", "postgresql+psycopg2://", "postgresql+psycopg://")


class EarlierNames(PydanticBaseSettingsSource):
    """The last of the sources: what one before it says stays."""

    def __init__(self, kind: type[BaseSettings], environment: Mapping[str, str | None]) -> None:
        """``environment`` has its names in small letters."""
        super().__init__(kind)
        self._given = {name: value for name, value in environment.items() if value}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError  # a source of single fields has these; this one makes all of them at once

    def __call__(self) -> dict[str, Any]:
        """Raises SettingsError."""
        found: dict[str, Any] = {}
        if (key := self._given.get("admin_key")) is not None:
            found["doors"] = {"admin_key": key}
        if (limit := self._given.get("rate_limit")) is not None:
            found["doors"] = found.get("doors", {}) | {"rate_limit": limit}
        if (url := self._given.get("database_url")) is not None and "url" not in self.current_state.get("postgres", {}):
            found["postgres"] = {"url": _postgres(url)}
        if (level := self._given.get("log_level")) is not None and "log_level" not in self.current_state:
            found["log_level"] = _level(level)
        # Pools are named, so that one of these would stand beside those of the settings.
        if "pools" not in self.current_state and (pool := self._pool()) is not None:
            found["pools"] = {"local": pool}
        return found

    def _pool(self) -> dict[str, Any] | None:
        url, name = self._given.get("triton_server_url"), self._given.get("model_name")
        if url is not None:
            served = self._given.get("triton_server_model_name")
            if served is None:
                raise SettingsError("TRITON_SERVER_URL is set, and TRITON_SERVER_MODEL_NAME is not; name the model")
            return {
                "backend": "triton",
                "base_url": _triton(url, self._given.get("triton_server_port")),
                "models": [served],
            }
        return None if name is None else {"backend": "xllamacpp", "models": [name]}


def _postgres(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if f"{scheme}{separator}" not in _POSTGRES:
        raise SettingsError("DATABASE_URL: use postgresql://…, or unset it")
    return f"postgresql://{rest}"


def _level(level: str) -> str:
    known = _LEVELS.get(level.upper())
    if known is None:
        raise SettingsError(f"LOG_LEVEL: use one of {', '.join(_LEVELS)}, or unset it")
    return known


def _triton(url: str, port: str | None) -> str:
    scheme, _, rest = url.rpartition("://")
    host = rest.rstrip("/")
    secure = "grpcs" if scheme in ("https", "grpcs") else "grpc"
    return f"{secure}://{host}" if port is None or ":" in host else f"{secure}://{host}:{port}"
