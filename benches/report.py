"""A run as Markdown tables, the buses side by side."""

from __future__ import annotations

from benches.aims import aims_table
from benches.event_tables import event_tables
from benches.load_tables import load_tables
from benches.machine import Machine
from benches.measurements import Run
from benches.usage_tables import usage_tables


def markdown(run: Run) -> str:
    """All of it, with a heading a table."""
    return "\n".join(
        [
            *machine_lines(run.machine),
            *aims_table(run),
            *load_tables(run),
            *event_tables(run),
            *usage_tables(run),
        ]
    )


def machine_lines(machine: Machine) -> list[str]:
    """Where a run was made."""
    return [
        f"{machine.processor}, {machine.cores} cores, {machine.memory / 2**30:.0f} GiB; {machine.system}; "
        f"Python {machine.python}; load average before the run {machine.load_average:.2f}.",
        "",
    ]
