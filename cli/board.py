"""What `parley up` shows: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

_STEP = 0.25


class Board:
    """A context: bars are gone when it ends. Safe to call from any thread."""

    def __init__(self, *, plain_progress: bool = True) -> None:
        """``plain_progress``: where there is no terminal, tell the progress in lines."""
        self._plain_progress = plain_progress
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._told: dict[str, float] = {}
        if sys.stdout.isatty():
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                console=Console(highlight=False),
                transient=True,
            )

    def __enter__(self) -> Board:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def line(self, text: str) -> None:
        """One line, which stays."""
        if self._bars is None:
            print(text, flush=True)
        else:
            self._bars.console.print(text, markup=False, soft_wrap=True)

    def progress(self, what: str, share: float) -> None:
        """``share`` of ``what`` is done, 0 to 1."""
        if self._bars is not None:
            if what not in self._tasks:
                self._tasks[what] = self._bars.add_task(what, total=1.0)
            self._bars.update(self._tasks[what], completed=share, visible=share < 1.0)
            return
        if not self._plain_progress:
            return
        told = self._told.get(what)
        if told is None or share >= told + _STEP or (share >= 1.0 > told):
            self._told[what] = share
            self.line(f"{what}: {share:.0%}")
