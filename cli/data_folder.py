"""The data folder: who uses it, and the first admin key in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from cli.failures import CommandError, ConfigurationError

_LEFTOVERS_S = 20.0
_POLL_S = 0.05


class FolderInUse(CommandError):
    """Another Parley runs on this data folder."""


@contextlib.contextmanager
def lock(data_dir: Path) -> Iterator[int]:
    """Be the only Parley on ``data_dir``; yields the lock's descriptor, which children may inherit.

    Waits while processes that a killed Parley left behind still end. Raises FolderInUse, ConfigurationError.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"the data folder {data_dir} cannot be used ({error.strerror}): make it writable, or set PARLEY_DATA_DIR"
        ) from None
    try:
        _take(descriptor, data_dir)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def holder(data_dir: Path) -> int | None:
    """The pid of the Parley that runs on ``data_dir``; None where none does."""
    try:
        descriptor = os.open(data_dir / "lock", os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _take(descriptor: int, data_dir: Path) -> None:
    deadline = time.monotonic() + _LEFTOVERS_S
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _pid(descriptor)
        if pid is not None and psutil.pid_exists(pid):
            raise FolderInUse(
                f"another Parley (pid {pid}) runs on this data folder ({data_dir.resolve()}): "
                "stop it, or set PARLEY_DATA_DIR to another folder"
            )
        if time.monotonic() > deadline:
            raise FolderInUse(
                f"processes that an earlier Parley left behind still use {data_dir.resolve()}: end them, then try again"
            )
        time.sleep(_POLL_S)


def _pid(descriptor: int) -> int | None:
    text = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
    return int(text) if text.isdecimal() else None


def admin_key_file(data_dir: Path) -> Path:
    """Where the first admin key is kept."""
    return data_dir / "admin.key"


def write_admin_key(data_dir: Path, key: str) -> Path:
    """Keep the first admin key, readable by its owner only; returns the file."""
    file = admin_key_file(data_dir)
    fresh = file.with_suffix(".new")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(key + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    fresh.rename(file)
    return file
