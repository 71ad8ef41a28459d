"""One child process of `parley up`: started, watched, started again when it dies, and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cli.failures import EX_CONFIG, FAILED, CommandError
from cli.restart import Backoff

_FIRST_STARTS = 5
_ANSWER_POLL_S = 0.05
_ANSWER_DEADLINE_S = 300.0


class ChildFailed(CommandError):
    """A child never came up; the message has its last error and its log's path."""


class Tell(Protocol):
    """Whoever shows the operator what happens."""

    def line(self, text: str) -> None: ...

    def progress(self, source: str, what: str, share: float) -> None: ...

    def done(self, source: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Launch:
    """One start of a program."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path | None = None
    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True, slots=True)
class Program:
    """What to run, and how to know that it works."""

    name: str
    launch: Callable[[], Awaitable[Launch]]
    """Asked before every start, so that each one is prepared anew. Raises CommandError, OSError."""
    answers: Callable[[], Awaitable[None]] | None = None
    """Raises ConnectionError until it works. None: it says so itself, with a status line on standard output."""
    stop_signal: signal.Signals = signal.SIGTERM
    grace_s: float = 10.0
    keeps_lock: bool = False
    """It inherits the lock of the data folder, so that nobody starts there before it is gone."""


class Child:
    def __init__(self, program: Program, log: Path, tell: Tell, lock: int | None, backoff: Backoff) -> None:
        self.program = program
        self.log = log
        self._tell = tell
        self._lock = lock if program.keeps_lock else None
        self._backoff = backoff
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[str] | None = None
        self._works = False
        self._stopping = asyncio.Event()
        self._why = ""

    @property
    def pid(self) -> int | None:
        """The running process, None while there is none."""
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    @property
    def works(self) -> bool:
        """The process that runs now said or showed that it is ready."""
        return self._works

    async def start(self) -> str:
        """Start it and wait until it works; return the detail it gave. Raises ChildFailed."""
        self._ready = asyncio.get_running_loop().create_future()
        self._keeper = asyncio.create_task(self._keep(self._ready), name=f"keep-{self.program.name}")
        return await asyncio.shield(self._ready)

    async def stop(self) -> None:
        """Ask it to end, and kill it after its grace period."""
        self._stopping.set()
        if self._keeper is None:
            return
        if self.pid is not None:
            self._signal(self.program.stop_signal)
            done, _ = await asyncio.wait({self._keeper}, timeout=self.program.grace_s)
            if not done:
                self._tell.line(f"{self.program.name} does not stop within {self.program.grace_s:g} s; killing it")
                self.kill()
        await asyncio.wait({self._keeper})

    def kill(self) -> None:
        """End it now, with its own children."""
        self._stopping.set()
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def _keep(self, ready: asyncio.Future[str]) -> None:
        starts = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            starts += 1
            self._why = ""
            code = await self._run(ready)
            self._works = False
            self._tell.done(self.program.name)
            if self._stopping.is_set():
                break
            reason = self._reason(code)
            if not ready.done() and (code == EX_CONFIG or starts >= _FIRST_STARTS):
                ready.set_exception(ChildFailed(f"{self.program.name} {reason} (log: {self.log})"))
                return
            delay = self._backoff.next(time.monotonic() - began)
            self._tell.line(f"{self.program.name} {reason}; starting it again in {delay:g} s (log: {self.log})")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)
        if not ready.done():
            ready.cancel()

    async def _run(self, ready: asyncio.Future[str]) -> int:
        """Run it once. Returns its exit code (negative: a signal), or why it could not be started as an exit code."""
        self._process = None
        try:
            launch = await self.program.launch()
            process = await self._spawn(launch)
        except (CommandError, OSError) as error:
            self._why = str(error)
            return error.exit_code if isinstance(error, CommandError) else FAILED
        self._process = process
        if self._stopping.is_set():
            self._signal(self.program.stop_signal)
        watch = asyncio.create_task(self._read(process, ready) if process.stdout else self._poll(ready))
        try:
            code = await process.wait()
            if process.stdout:
                await watch
            return code
        finally:
            watch.cancel()
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)

    async def _spawn(self, launch: Launch) -> asyncio.subprocess.Process:
        with self.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *launch.argv,
                env=dict(launch.environment),
                cwd=launch.folder,
                stdin=subprocess.PIPE,
                stdout=log if self.program.answers else subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                pass_fds=() if self._lock is None else (self._lock,),
                user=launch.uid,
                group=launch.gid,
                extra_groups=None if launch.uid is None else [],
                limit=1 << 20,
            )

    async def _read(self, process: asyncio.subprocess.Process, ready: asyncio.Future[str]) -> None:
        assert process.stdout is not None
        async for raw in process.stdout:
            try:
                line = json.loads(raw)
            except ValueError:
                line = None
            match line:
                case {"ready": True}:
                    self._is_ready(ready, str(line.get("detail", "")))
                case {"progress": str(what), "share": float() | int() as share}:
                    self._tell.progress(self.program.name, what, float(share))
                case {"blocked": str(), "why": str(why)} if ready.done():
                    self._tell.line(f"{self.program.name} is not ready: {why}")
                case {"failed": str(why)}:
                    self._why = why
                case _:
                    with self.log.open("ab") as log:
                        log.write(raw)

    async def _poll(self, ready: asyncio.Future[str]) -> None:
        assert self.program.answers is not None
        deadline = time.monotonic() + _ANSWER_DEADLINE_S
        while True:
            try:
                await self.program.answers()
            except ConnectionError as error:
                if time.monotonic() > deadline:
                    self._why = str(error)
                    self._signal(signal.SIGKILL)
                    return None
                await asyncio.sleep(_ANSWER_POLL_S)
            else:
                return self._is_ready(ready, "")

    def _is_ready(self, ready: asyncio.Future[str], detail: str) -> None:
        self._works = True
        self._tell.done(self.program.name)
        if ready.done():
            self._tell.line(f"{self.program.name} works again")
        else:
            ready.set_result(detail)

    def _reason(self, code: int) -> str:
        if self._process is None:
            how = "could not be started"
        elif code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        else:
            how = f"ended with exit code {code}"
        why = self._why or ("" if code < 0 else last_line(self.log))
        return f"{how}: {why}" if why else how


def last_line(log: Path) -> str:
    """The last thing a log says, at most 300 characters; the message where the line is JSON."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 8192))
            lines = [line for line in stream.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    if not lines:
        return ""
    with contextlib.suppress(ValueError):
        match json.loads(lines[-1]):
            case {"message": str(message)}:
                return message[:300]
    return lines[-1].strip()[:300]
