"""`parley up` as a person starts it, in a folder of its own, with a scripted model."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil

DEADLINE_S = 120.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


class Up:
    """`parley up`; ``settings`` are environment variables on top of its own."""

    def __init__(self, folder: Path, **settings: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.data = folder / "data"
        self.port = free_port()
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")} | {
            "PARLEY_DATA_DIR": str(self.data),
            "PARLEY_PORT": str(self.port),
            # What kill -9 leaves behind is taken over sooner than by default.
            "PARLEY_BUS__LEASE_S": "2",
            "PARLEY_WORKER__LEASE_S": "2",
            # Beside many other tests the read models are further behind than people would wait for.
            "PARLEY_READ_YOUR_WRITES_S": "10",
            "PARLEY_POOLS": json.dumps({"local": {"backend": "scripted", "models": ["script"]}}),
            **settings,
        }
        self._starts = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        return (self.folder / f"up-{self._starts}.log").read_text()

    @property
    def admin_key(self) -> str:
        return (self.data / "admin.key").read_text().strip()

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Within, it runs and is ready. It has to stop as it should."""
        try:
            self.start()
            self.ready()
            yield
            assert self.stop() == 0
        finally:
            self.end()

    def start(self) -> None:
        self._starts += 1
        with (self.folder / f"up-{self._starts}.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cli.main", "up"],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ready(self) -> None:
        assert self.process is not None
        process = self.process
        until(lambda: "Parley is ready" in self.output or process.poll() is not None, self.output)
        assert process.poll() is None, self.output

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=DEADLINE_S)

    def parley(self, *arguments: str, code: int = 0, stdin: str = "", **environment: str) -> str:
        result = subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments],
            cwd=self.folder,
            env=self.environment | environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
        assert result.returncode == code, result.stdout + result.stderr
        assert "Traceback" not in result.stderr
        return result.stdout if code == 0 else result.stderr

    def get(self, path: str, key: str | None = None) -> httpx.Response:
        return httpx.get(self.url + path, headers={"Authorization": f"Bearer {key or self.admin_key}"}, timeout=10)

    def child(self, wanted: str) -> psutil.Process:
        """The running child whose command line has ``wanted`` in it."""
        assert self.process is not None
        return next(
            child for child in psutil.Process(self.process.pid).children() if wanted in " ".join(child.cmdline())
        )

    def kill_everything(self) -> None:
        """kill -9 of the supervisor and of every process that it, or any of its children, started."""
        assert self.process is not None
        supervisor = psutil.Process(self.process.pid)
        everything = [supervisor, *supervisor.children(recursive=True)]
        for process in everything:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        psutil.wait_procs(everything, timeout=DEADLINE_S)

    def end(self) -> None:
        """Whatever became of it, leave nobody behind."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=DEADLINE_S)
        for process in psutil.process_iter(["cmdline"]):
            if str(self.data) in " ".join(process.info["cmdline"] or ()):
                process.kill()
