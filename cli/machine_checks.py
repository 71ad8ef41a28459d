"""Checks of files, folders, the port and the processor."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import psutil

from backplane.settings import LlmSettings, Settings
from cli import configuration, port
from cli import data_folder as folder
from cli.failures import ConfigurationError
from cli.finding import FAIL, OK, WARN, Finding

_ENV_FILE = Path(".env")
_OTHER_NAMES = {"PARLEY_SETTINGS", "PARLEY_API_KEY", "PARLEY_URL", "PARLEY_STATUS", "PARLEY_SUPERVISED"}
_LITTLE_DISK = 2 * 1024**3
_NO_DISK = 256 * 1024**2
_FEATURES = {
    "avx": "AVX",
    "avx2": "AVX2",
    "fma": "FMA",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "amx_int8": "AMX",
    "asimd": "NEON",
    "sve": "SVE",
}
"""Linux's names → everybody's."""


def configuration_files() -> Iterator[Finding]:
    """The settings file and ``.env``: whether they are read, and names in them that mean nothing."""
    file = configuration.settings_file()
    if file.is_file():
        yield Finding(OK, "settings file", f"{file} is read")
        yield from _unknown_settings(file)
    elif "PARLEY_SETTINGS" in os.environ:
        yield Finding(FAIL, "settings file", f"{file} is not there", "correct PARLEY_SETTINGS, or unset it")
    else:
        yield Finding(OK, "settings file", f"no {file}; defaults hold")
    named = set(os.environ)
    if _ENV_FILE.is_file():
        yield Finding(OK, ".env", "is read")
        lines = _ENV_FILE.read_text(errors="replace").splitlines()
        named |= {line.split("=", 1)[0].strip().removeprefix("export ") for line in lines if "=" in line}
    else:
        yield Finding(OK, ".env", "none; .env.example lists what there is")
    unknown = sorted(name for name in named if _means_nothing(name))
    if unknown:
        yield Finding(
            WARN, "environment", f"no setting is named {', '.join(unknown)}", "compare with settings.example.toml"
        )


def _unknown_settings(file: Path) -> Iterator[Finding]:
    try:
        known = tomllib.loads(file.read_text())
    except (OSError, ValueError):
        return  # loading the settings says what is wrong
    unknown = sorted(set(known) - set(Settings.model_fields))
    if unknown:
        yield Finding(
            WARN, "settings file", f"no setting is named {', '.join(unknown)}", "compare with settings.example.toml"
        )


def _means_nothing(name: str) -> bool:
    if name in _OTHER_NAMES:
        return False
    if name.startswith("PARLEY_"):
        return name.removeprefix("PARLEY_").split("__")[0].lower() not in Settings.model_fields
    return name.startswith("LLM_") and name.removeprefix("LLM_").lower() not in LlmSettings.model_fields


def data_folder(settings: Settings) -> Iterator[Finding]:
    """The data folder, who may read it, and the disk under it."""
    data_dir = settings.data_dir
    if not data_dir.exists():
        parent = next(parent for parent in data_dir.absolute().parents if parent.exists())
        if os.access(parent, os.W_OK):
            yield Finding(OK, "data folder", f"{data_dir} is not there yet; `parley up` makes it")
        else:
            yield Finding(
                FAIL, "data folder", f"{data_dir} cannot be made", f"make {parent} writable, or set PARLEY_DATA_DIR"
            )
        yield _disk(parent)
        return
    if not data_dir.is_dir() or not os.access(data_dir, os.R_OK | os.W_OK | os.X_OK):
        yield Finding(
            FAIL,
            "data folder",
            f"{data_dir} cannot be used by this account",
            "run as its owner, or set PARLEY_DATA_DIR",
        )
        return
    holder = folder.holder(data_dir)
    used = f"used by Parley (pid {holder})" if holder else "no Parley runs on it"
    open_to = [
        path.name
        for path, bits in ((data_dir, 0o007), (data_dir / "secrets.json", 0o077), (data_dir / "admin.key", 0o077))
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & bits & ~0o011
    ]
    if open_to:
        yield Finding(
            WARN,
            "data folder",
            f"{data_dir}, {used}; others may read {', '.join(open_to)}",
            f"chmod 700 {data_dir}; chmod 600 {data_dir}/secrets.json {data_dir}/admin.key",
        )
    else:
        yield Finding(OK, "data folder", f"{data_dir}, {used}")
    yield _disk(data_dir)


def _disk(path: Path) -> Finding:
    free = shutil.disk_usage(path).free
    detail = f"{free / 1024**3:.1f} GiB free"
    if free < _NO_DISK:
        return Finding(FAIL, "disk", detail, "free some space: Postgres stops when the disk is full")
    if free < _LITTLE_DISK:
        return Finding(WARN, "disk", detail, "free some space soon")
    return Finding(OK, "disk", detail)


def free_port(settings: Settings) -> Finding:
    """Whether the port can be listened on, or is ours already."""
    try:
        port.check(settings.host, settings.port)
    except ConfigurationError as error:
        if folder.holder(settings.data_dir) is not None:
            return Finding(OK, "port", f"{settings.port} is in use while Parley runs")
        detail, _, advice = str(error).partition(": ")
        return Finding(FAIL, "port", detail, advice)
    return Finding(OK, "port", f"{settings.port} on {settings.host} is free")


def processor() -> Iterator[Finding]:
    """Cores, memory, and the vector instructions that a local model wants."""
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    yield Finding(OK, "CPU", f"{cores} cores, {platform.machine()}")
    memory = psutil.virtual_memory()
    yield Finding(
        OK, "memory", f"{memory.total / 1024**3:.1f} GiB, of which {memory.available / 1024**3:.1f} GiB are free"
    )
    flags = cpu_flags()
    if not flags:
        yield Finding(OK, "CPU features", "this system does not say")
        return
    found = ", ".join(told for flag, told in _FEATURES.items() if flag in flags)
    if platform.machine() in ("x86_64", "AMD64") and "avx2" not in flags:
        yield Finding(
            WARN,
            "CPU features",
            f"{found or 'none that a local model wants'}; no AVX2",
            "a local model will be slow here; use a GPU or another host",
        )
    else:
        yield Finding(OK, "CPU features", found or "none that a local model wants")


def cpu_flags() -> frozenset[str]:
    """The processor's features under Linux's names; what every Mac with Apple's chips has; empty where nobody says."""
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return frozenset(("asimd",))
    try:
        return frozenset(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return frozenset()
