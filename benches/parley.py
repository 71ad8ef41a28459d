"""A Parley of a bench's own: `parley up`, on a free port."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from benches.installation import Installation
from benches.load import Target
from benches.processes import Groups
from cli.child import last_line

_START_S = 120.0
_STOP_S = 60.0
_KEPT_LINES = 30
_READY = re.compile(r"Parley is ready: (\S+)")
_DIED = "starting it again"
_LOG = re.compile(r"\(log: (.+)\)")
_BEHIND_THE_BUS = ("worker", "projections")
_SERVICES = ("gateway", "ingest", *_BEHIND_THE_BUS)


class NotStarted(Exception):
    """`parley up` did not come up; the message has its last lines."""


class Parley:
    """One that runs."""

    def __init__(self, process: asyncio.subprocess.Process, data: Path) -> None:
        self._process = process
        self._data = data
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read())
        self.deaths: list[str] = []
        """What it said of children that died; figures are worth nothing then."""

    async def target(self) -> Target:
        """Where it is, once it is ready. Raises NotStarted."""
        try:
            async with asyncio.timeout(_START_S):
                address = urlsplit(await asyncio.shield(self._address))
        except TimeoutError:
            raise NotStarted(self._account(f"was not ready after {_START_S:.0f} s")) from None
        assert address.hostname is not None
        assert address.port is not None
        return Target(host=address.hostname, port=address.port, key=(self._data / "admin.key").read_text().strip())

    def groups(self) -> Groups:
        """Its processes, by what they are."""
        own = psutil.Process(self._process.pid)
        roots = {_name(child): child for child in own.children()}
        # Its children are groups of their own, so it stands for itself alone.
        return Groups(dict(sorted(roots.items())), alone={"supervisor": own})

    @contextmanager
    def nobody_works(self) -> Iterator[None]:
        """Within, its workers and projections stand still."""
        still = [each for each in psutil.Process(self._process.pid).children() if _name(each) in _BEHIND_THE_BUS]
        try:
            for each in still:
                each.suspend()
            yield
        finally:
            for each in still:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.resume()

    async def stop(self) -> None:
        left = _family(self._process.pid)
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGINT)
        try:
            async with asyncio.timeout(_STOP_S):
                await self._process.wait()
        except TimeoutError:
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        await self._reading

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for raw in self._process.stdout:
            line = raw.decode(errors="replace").rstrip()
            self._lines.append(line)
            if _DIED in line:
                # Its log goes with the folder.
                log = _LOG.search(line)
                self.deaths.append(line if log is None else f"{line}: {last_line(Path(log[1]))}")
            if (ready := _READY.search(line)) is not None and not self._address.done():
                self._address.set_result(ready[1])
        if not self._address.done():
            self._address.set_exception(NotStarted(self._account("ended")))

    def _account(self, what: str) -> str:
        return "\n".join([f"`parley up` {what}; it said last:", *self._lines])


@asynccontextmanager
async def running(installation: Installation) -> AsyncIterator[Parley]:
    """The Parley of ``installation``, while the block lasts. Ask for its `target`, which waits until it is ready."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "cli.main", "up"),
        env=installation.environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    parley = Parley(process, installation.settings.data_dir)
    try:
        yield parley
    finally:
        await asyncio.shield(parley.stop())


def _name(child: psutil.Process) -> str:
    words = child.cmdline()
    service = next((service for service in _SERVICES if service in words), None)
    return service or child.name().removesuffix("-server")


def _family(pid: int) -> list[psutil.Process]:
    try:
        own = psutil.Process(pid)
        return [own, *own.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
