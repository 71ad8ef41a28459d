"""Markdown tables, and how figures are written in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benches.figures import Spread
from benches.processes import Memory

UNKNOWN = "–"


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]], words: int = 2) -> list[str]:
    """Lines of a table under its heading. The first ``words`` columns are text, the others are numbers."""
    line = "| " + " | ".join("---" if column < words else "---:" for column in range(len(head))) + " |"
    return [
        f"### {title}",
        "",
        "| " + " | ".join(head) + " |",
        line,
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]


def ms(spread: Spread | None, *names: str) -> list[str]:
    """Those members of ``spread``, a cell each."""
    return [UNKNOWN if spread is None else number(getattr(spread, name)) for name in names]


def number(value: float) -> str:
    """With two places where it is below 1, else with one."""
    return f"{value:.2f}" if abs(value) < 1 else f"{value:,.1f}"


def mib(size: int) -> str:
    return f"{size / 2**20:.0f}"


def memory(used: Memory | None) -> str:
    """RSS / PSS in MiB."""
    if used is None:
        return UNKNOWN
    return f"{mib(used.rss)} / {UNKNOWN if used.pss is None else mib(used.pss)}"
