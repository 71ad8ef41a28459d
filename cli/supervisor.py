"""All children of `parley up`: started one after another, stopped in reverse order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from cli.child import Child, Program, Tell
from cli.restart import Backoff

_KEPT_LOGS = 3


class Supervisor:
    """Keeps children running. ``lock`` is the descriptor of the data folder's lock, for those that inherit it."""

    def __init__(
        self, log_dir: Path, tell: Tell, *, lock: int | None = None, backoff: Callable[[], Backoff] = Backoff
    ) -> None:
        self._log_dir = log_dir
        self._tell = tell
        self._lock = lock
        self._backoff = backoff
        self.children: list[Child] = []
        log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def start(self, program: Program) -> str:
        """Start ``program`` and wait until it works; return the detail it gave. Raises ChildFailed."""
        log = self._log_dir / f"{program.name}.log"
        rotate(log)
        child = Child(program, log, self._tell, self._lock, self._backoff())
        self.children.append(child)
        return await child.start()

    async def stop(self) -> None:
        """End all children, the last one first, each within its grace period."""
        for child in reversed(self.children):
            await child.stop()

    def kill(self) -> None:
        """End all children at once."""
        for child in reversed(self.children):
            child.kill()


def rotate(log: Path) -> None:
    """Set aside what an earlier run wrote: ``x.log`` becomes ``x.log.1``, and so on; a few are kept."""
    for age in range(_KEPT_LOGS - 1, 0, -1):
        with contextlib.suppress(FileNotFoundError):
            log.with_name(f"{log.name}.{age}").rename(log.with_name(f"{log.name}.{age + 1}"))
    with contextlib.suppress(FileNotFoundError):
        log.rename(log.with_name(f"{log.name}.1"))
    log.touch(mode=0o600)
