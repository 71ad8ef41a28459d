"""Who the embedded servers run as. Postgres refuses to run as root, so root needs another account for it."""

from __future__ import annotations

import hashlib
import logging
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

ACCOUNT = "parley"


class EmbeddedServerError(Exception):
    """An embedded server cannot be prepared or started. Says what to do."""


@dataclass(frozen=True, slots=True)
class Command:
    """How to start one server as a child process."""

    argv: tuple[str, ...]
    folder: Path
    log: Path
    uid: int | None
    gid: int | None


def identity() -> tuple[int | None, int | None]:
    """(uid, gid) to start servers with; (None, None) where we are not root and they may run as ourselves.

    Raises EmbeddedServerError where root has no account to hand over to and cannot make one.
    """
    if os.geteuid() != 0:
        return None, None
    try:
        entry = pwd.getpwnam(ACCOUNT)
    except KeyError:
        useradd = shutil.which("useradd")
        if useradd is None:
            raise EmbeddedServerError(
                f"Postgres does not run as root, and there is no `useradd` to make the account {ACCOUNT!r}: "
                "make it yourself, or start Parley as another user"
            ) from None
        subprocess.run(  # noqa: S603 - a fixed program with fixed arguments
            [useradd, "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", ACCOUNT], check=False
        )
        try:
            entry = pwd.getpwnam(ACCOUNT)
        except KeyError:
            raise EmbeddedServerError(f"could not make the account {ACCOUNT!r} that Postgres is to run as") from None
    return entry.pw_uid, entry.pw_gid


def private_folder(folder: Path, uid: int | None, gid: int | None) -> Path:
    """Make ``folder`` with mode 700, owned by the servers' account."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    if uid is not None and gid is not None:
        os.chown(folder, uid, gid)
    return folder


def let_through(path: Path, uid: int | None) -> None:
    """Let the servers' account pass through the folders above ``path``, where root's own are closed to it.

    Only the right to pass (x) is added, never to read. Does nothing when servers run as ourselves.
    """
    if uid is None:
        return
    for parent in path.resolve().parents:
        status = parent.stat()
        if status.st_uid != uid and not status.st_mode & stat.S_IXOTH:
            logger.warning(
                "letting the account %s pass through %s", ACCOUNT, parent, extra={"action": "account_let_through"}
            )
            parent.chmod(stat.S_IMODE(status.st_mode) | stat.S_IXGRP | stat.S_IXOTH)


def socket_folder(data_dir: Path) -> Path:
    """Where the servers' sockets are: in the data folder, or in a private temporary one where its path is too long.

    A socket's path has at most 107 bytes on Linux and 103 on macOS (sockaddr_un).
    """
    inside = data_dir.resolve() / "run"
    if len(bytes(inside / ".s.PGSQL.5432.lock")) <= 103:
        return inside
    return Path(tempfile.gettempdir()) / f"parley-{hashlib.sha256(bytes(data_dir.resolve())).hexdigest()[:16]}"
