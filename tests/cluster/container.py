"""One container of the compose file as a process: started, restarted when it ends, stopped in its time, killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.child import Child, Launch, Program, Tell
from cli.failures import EX_TEMPFAIL
from cli.restart import Backoff

_BETWEEN_CHECKS_S = 0.3
_DEADLINE_S = 150.0
_TRIES = 3


@dataclass(frozen=True)
class Image:
    """How an image starts, and the signal that ends it."""

    launch: Launch
    stop_signal: signal.Signals = signal.SIGTERM


class Container:
    def __init__(
        self, name: str, image: Image, check: Sequence[str], stop_grace_s: float, log: Path, tell: Tell
    ) -> None:
        """``check`` is the health check of the compose file, ``stop_grace_s`` what it gives for an orderly end."""
        self.name = name
        self.log = log
        self._image = image
        self._check = check
        self._tell = tell
        self._program = Program(name, self._launch, self._is_healthy, image.stop_signal, stop_grace_s)
        self._child: Child | None = None

    async def start(self) -> None:
        """Return once it is healthy. Raises ChildFailed."""
        self._child = Child(self._program, self.log, self._tell, None, Backoff(0.1, 1.0))
        await self._child.start()

    async def stop(self) -> None:
        if self._child is not None:
            await self._child.stop()
            self._child = None

    async def restart(self) -> None:
        """As `docker compose restart`."""
        self._tell.line(f"{self.name} is restarted")
        await self.stop()
        await self.start()
        self._tell.line(f"{self.name} is healthy again")

    async def kill(self) -> None:
        """kill -9; return once its restart rule has brought it back, healthy. Raises TimeoutError."""
        assert self._child is not None
        killed = self._child.pid
        assert killed is not None, f"{self.name} was down"
        self._tell.line(f"{self.name} is killed")
        os.kill(killed, signal.SIGKILL)
        deadline = time.monotonic() + _DEADLINE_S
        while not (self._child.works and self._child.pid not in (None, killed)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} did not come back after kill -9 (log: {self.log})")
            await asyncio.sleep(0.05)

    async def run(self, arguments: Sequence[str]) -> str:
        """As `docker compose run --rm`, with ``arguments`` after the image's own program: what it prints.

        Asks again, as an operator would, where it says that this may help. Raises RuntimeError with its log.
        """
        for _ in range(_TRIES):
            code, said = await self._run(arguments)
            if code != EX_TEMPFAIL:
                break
        if code:
            raise RuntimeError(f"{self.name} ended with {code}: {self.log.read_text()[-2000:]}")
        return said

    async def _run(self, arguments: Sequence[str]) -> tuple[int | None, str]:
        launch = self._image.launch
        with self.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                launch.argv[0],
                *arguments,
                env=dict(launch.environment),
                cwd=launch.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
            said, _ = await process.communicate()
        return process.returncode, said.decode()

    async def _launch(self) -> Launch:
        return self._image.launch

    async def _is_healthy(self) -> None:
        check = await asyncio.create_subprocess_exec(
            *self._check,
            env=dict(self._image.launch.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said, _ = await check.communicate()
        if check.returncode:
            await asyncio.sleep(_BETWEEN_CHECKS_S)
            raise ConnectionError(f"{self.name} is not healthy: {said.decode().strip()}")


def shell(test: Sequence[str]) -> tuple[str, ...]:
    """The command of a health check."""
    kind, *command = test
    return ("sh", "-c", *command) if kind == "CMD-SHELL" else tuple(command)
