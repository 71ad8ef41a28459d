"""How far a run is, on standard error."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class Board:
    """A context: a bar on a terminal, a line for each step elsewhere."""

    def __init__(self, steps: int) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._steps = steps
        self._begun = 0
        self._bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            # What draws takes from what is measured.
            refresh_per_second=2,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=steps)

    def __enter__(self) -> Board:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def step(self, what: str) -> None:
        """The next step begins."""
        self._bar.update(self._task, completed=self._begun, description=what)
        self._begun += 1
        if not self._console.is_terminal:
            self.line(f"{self._begun}/{self._steps} {what}")

    def line(self, text: str) -> None:
        """One line, which stays."""
        self._console.print(text, markup=False, soft_wrap=True)
