"""What light tenants waited beside a flood, as Markdown tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from backplane.ports.identifiers import new_id
from benches.fairness import Beside, BusFairness, FairnessRun
from benches.fairness_load import LOAD
from benches.fairness_parley import SLOTS, WORKER_COUNT, shared_lanes
from benches.figures import Spread
from benches.tables import UNKNOWN, ms, number, table

_PARTITIONS = (4, 8, 16, 32)
_TRIES = 10_000
_SHARING = ("no lane", "one lane", "both lanes")


def fairness_markdown(run: FairnessRun) -> str:
    """All of it, with a heading a table."""
    plan, machine = run.plan, run.machine
    return "\n".join(
        [
            f"{WORKER_COUNT} workers of {SLOTS} slots on {machine.cores} cores ({machine.processor}; load average "
            f"before the run {machine.load_average:.2f}); every answer has {LOAD.tokens} tokens and takes "
            f"{LOAD.answer_s:.2f} s. One tenant's {plan.flood:,} prompts are accepted, then light tenants ask "
            f"{plan.prompts} times each, side by side, every {plan.every_s} s. A wait runs from the 202 to the first "
            "token.",
            "",
            *waits_table(run),
            *chances_table(sorted({*_PARTITIONS, *(found.partitions for found in run.buses)})),
        ]
    )


def waits_table(run: FairnessRun) -> list[str]:
    head = [
        "a light tenant",
        "bus",
        "of all tenants",
        "prompts",
        "wait p50 (ms)",
        "worst",
        "p50 over alone",
        "p50 of first in, first out over this",
        "left of the flood at its first prompt",
        "at its last",
    ]
    return table("The wait of a light tenant beside a flood", head, _waits(run.buses))


def chances_table(partitions: Sequence[int]) -> list[str]:
    """How often another tenant shares lanes with the one that floods."""
    found = {count: chances(count) for count in partitions}
    rows = [[str(count), *(f"{found[count].get(n, 0):.1%}" for n in range(len(_SHARING)))] for count in partitions]
    head = ["partitions", *(f"{name} shared" for name in _SHARING)]
    return table(f"Lanes that two tenants share, of {_TRIES:,} pairs of tenants", head, rows, words=0)


def chances(partitions: int) -> dict[int, float]:
    """The share of all pairs of tenants, by how many lanes they have in common; found by trying."""
    found = Counter(shared_lanes(new_id(), new_id(), partitions) for _ in range(_TRIES))
    return {shared: count / _TRIES for shared, count in found.items()}


def _waits(buses: Sequence[BusFairness]) -> Iterator[list[str]]:
    for found in buses:
        yield _row("alone", found, found.alone, UNKNOWN, None)
    for shared, name in enumerate(_SHARING):
        for found in buses:
            if shared in found.beside.waits:
                share = f"{chances(found.partitions).get(shared, 0):.0%}"
                wait = found.beside.waits[shared]
                yield _row(f"beside the flood, {name} shared", found, wait, share, found.beside)
    for found in buses:
        for wait in found.in_order.waits.values():
            yield _row("first in, first out: one partition", found, wait, "100%", found.in_order)


def _row(name: str, found: BusFairness, wait: Spread | None, share: str, beside: Beside | None) -> list[str]:
    in_order = next(iter(found.in_order.waits.values()), None)
    left = [UNKNOWN, UNKNOWN] if beside is None else [f"{beside.before:,}", f"{beside.after:,}"]
    return [
        name,
        found.bus.label,
        share,
        UNKNOWN if wait is None else str(wait.count),
        *ms(wait, "p50", "most"),
        _times(wait, found.alone),
        UNKNOWN if beside is None else _times(in_order, wait),
        *left,
    ]


def _times(wait: Spread | None, base: Spread | None) -> str:
    return UNKNOWN if wait is None or base is None or not base.p50 else f"×{number(wait.p50 / base.p50)}"
