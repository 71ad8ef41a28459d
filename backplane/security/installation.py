"""The secrets that one installation makes for itself, once, in its data folder."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from dataclasses import asdict, dataclass, fields
from pathlib import Path

_MADE_LATER = {"master_key", "signing_key"}
"""What installations of earlier releases lack."""


@dataclass(frozen=True, slots=True)
class InstallationSecrets:
    """Passwords of the database roles, the key of the hash that API keys are stored as, the master key that provider
    keys are sealed under, and the key that checkpoints of the record are signed with. Hexadecimal."""

    postgres_owner: str
    command_api: str
    query_api: str
    worker: str
    projections: str
    relay: str
    key_pepper: str
    master_key: str
    signing_key: str

    def __repr__(self) -> str:
        return "InstallationSecrets(…)"

    @staticmethod
    def are_in(data_dir: Path) -> bool:
        """Whether an installation made its secrets in this folder."""
        return _file(data_dir).exists()

    @classmethod
    def load_or_make(cls, data_dir: Path) -> InstallationSecrets:
        """Read ``secrets.json`` (mode 600), or make it. Raises ValueError where it is there and is not whole."""
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(data_dir, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)  # else two that find none would each make their own
            return cls._load_or_make(_file(data_dir))
        finally:
            os.close(folder)

    @classmethod
    def _load_or_make(cls, file: Path) -> InstallationSecrets:
        kept: dict[str, str] = {}
        wanted = {field.name for field in fields(cls)}
        if file.exists():
            try:
                kept = json.loads(file.read_text())
                whole = wanted - _MADE_LATER <= kept.keys() <= wanted
            except (AttributeError, ValueError):
                whole = False
            if not whole:
                raise ValueError(f"{file} is damaged; restore it from a backup, keys depend on it")
        made = cls(**{name: secrets.token_hex(32) for name in wanted} | kept)
        if kept.keys() == wanted:
            return made
        fresh = file.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            json.dump(asdict(made), stream)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.rename(file)
        return made


def _file(data_dir: Path) -> Path:
    return data_dir / "secrets.json"
