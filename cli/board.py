"""What `parley up` shows: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

_STEP = 0.25


class Board:
    """A context. Bars are there only while something is under way. Safe to call from any thread."""

    def __init__(self, *, plain_progress: bool = True, on: TextIO | None = None) -> None:
        """``plain_progress``: where there is no terminal, tell the progress in lines. ``on`` None is stdout."""
        self._plain_progress = plain_progress
        self._on = on
        self._console = Console(highlight=False, file=on) if (on or sys.stdout).isatty() else None
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._told: dict[tuple[str, str], float] = {}
        self._one_at_a_time = threading.Lock()

    def __enter__(self) -> Board:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for source in list(self._tasks):
            self.done(source)

    def line(self, text: str) -> None:
        """One line, which stays."""
        if self._console is None:
            print(text, file=self._on, flush=True)
        else:
            self._console.print(text, markup=False, soft_wrap=True)

    def progress(self, source: str, what: str, share: float) -> None:
        """``share`` of ``what`` is done by ``source``, 0 to 1. A source has one bar."""
        text = f"{source}: {what}"
        with self._one_at_a_time:
            if self._console is not None:
                self._show(self._console, source, text, share)
                return
            told = self._told.get((source, what))
            if self._plain_progress and (told is None or share >= told + _STEP or (share >= 1.0 > told)):
                self._told[source, what] = share
                self.line(f"{text}: {share:.0%}")

    def done(self, source: str) -> None:
        """``source`` has nothing more under way."""
        with self._one_at_a_time:
            task = self._tasks.pop(source, None)
            if self._bars is None or task is None:
                return
            self._bars.remove_task(task)
            if not self._tasks:
                self._bars.stop()
                self._bars = None

    def _show(self, console: Console, source: str, text: str, share: float) -> None:
        if self._bars is None:
            self._bars = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                console=console,
                transient=True,
            )
            self._bars.start()
        if source not in self._tasks:
            self._tasks[source] = self._bars.add_task(text, total=1.0)
        self._bars.update(self._tasks[source], description=text, completed=share)
