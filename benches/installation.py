"""Where the Parleys of a bench live, and what they are told: nothing of this folder's or this shell's settings."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from backplane.settings import BusSettings, PoolSettings, PulsarSettings, Settings

POOL = "scripted"
_OURS = ("PARLEY_", "LLM_")


@dataclass(frozen=True, slots=True)
class Installation:
    """One data folder, with the defaults of every setting that a bench need not choose."""

    settings: Settings

    @classmethod
    def make(cls, folder: Path, slots: int, pulsar: PulsarSettings | None) -> Installation:
        """In ``folder``, with a worker of ``slots``; on Pulsar where one is given, else on Postgres."""
        pool = PoolSettings(backend="scripted", models=("scripted",), slots=slots)
        bus = BusSettings(pulsar=pulsar) if pulsar is not None else BusSettings()
        return cls(Settings(data_dir=folder / "data", port=0, pools={POOL: pool}, bus=bus))

    @property
    def environment(self) -> dict[str, str]:
        """For processes that are to use it."""
        pools = {name: pool.model_dump(mode="json", exclude_none=True) for name, pool in self.settings.pools.items()}
        return {
            **os.environ,
            "PARLEY_DATA_DIR": str(self.settings.data_dir),
            "PARLEY_PORT": str(self.settings.port),
            "PARLEY_POOLS": json.dumps(pools),
            "PARLEY_BUS": self.settings.bus.model_dump_json(exclude_none=True),
        }


@contextlib.contextmanager
def apart() -> Iterator[Path]:
    """A fresh folder to work in, where no `.env`, no `settings.toml` and no variable is found; gone afterwards."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(_OURS)}
    for name in kept:
        del os.environ[name]
    folder = Path(tempfile.mkdtemp(prefix="parley-bench-"))
    try:
        with contextlib.chdir(folder):
            yield folder
    finally:
        os.environ.update(kept)
        shutil.rmtree(folder, ignore_errors=True)
