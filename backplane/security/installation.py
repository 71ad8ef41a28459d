"""The secrets that one installation makes for itself, once, in its data folder."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass, fields
from pathlib import Path


@dataclass(frozen=True, slots=True)
class InstallationSecrets:
    """Passwords of the database roles, and the key of the hash that API keys are stored as. Hexadecimal."""

    postgres_owner: str
    command_api: str
    query_api: str
    worker: str
    projections: str
    relay: str
    key_pepper: str

    def __repr__(self) -> str:
        return "InstallationSecrets(…)"

    @classmethod
    def load_or_make(cls, data_dir: Path) -> InstallationSecrets:
        """Read ``secrets.json`` (mode 600), or make it. Raises ValueError where it is there and is not whole."""
        file = data_dir / "secrets.json"
        if file.exists():
            try:
                return cls(**json.loads(file.read_text()))
            except (TypeError, ValueError):
                raise ValueError(f"{file} is damaged; restore it from a backup, keys depend on it") from None
        made = cls(**{field.name: secrets.token_hex(32) for field in fields(cls)})
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = file.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            json.dump(asdict(made), stream)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.rename(file)
        return made
