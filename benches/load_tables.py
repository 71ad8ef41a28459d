"""Tables of the loads: when tokens come, how many, and whether the read models keep up."""

from __future__ import annotations

from benches.figures import Spread
from benches.measurements import Run
from benches.tables import UNKNOWN, ms, number, table


def load_tables(run: Run) -> list[str]:
    return [*_latency(run), *_flow(run), *_accepting(run), *_keeping_up(run)]


def _latency(run: Run) -> list[str]:
    rows = []
    for bus_run, level in run.levels():
        direct, got = level.direct.outcome.figures.first_token, level.parley.outcome.figures
        parley = got.first_token
        rows.append(
            [
                level.load.name,
                bus_run.bus.label,
                str(parley.count) if parley else "0",
                *ms(direct, "p50", "p99"),
                *ms(got.accepted, "p50", "p99"),
                *ms(parley, "p50", "p99"),
                _overhead(direct, parley, "p50"),
                _overhead(direct, parley, "p99"),
                str(sum(got.unavailable.values())),
            ]
        )
    head = ["load", "bus", "prompts", "direct p50", "p99", "202 p50", "p99", "Parley p50", "p99"]
    return table("Time to the first token (ms)", [*head, "overhead p50", "p99", "503s"], rows)


def _flow(run: Run) -> list[str]:
    rows = []
    for bus_run, level in run.levels():
        direct, parley = level.direct.outcome.figures, level.parley.outcome.figures
        wanted = level.load.wanted_tokens_per_s
        paced = wanted is not None
        rows.append(
            [
                level.load.name,
                bus_run.bus.label,
                f"{wanted:,.0f}" if wanted is not None else UNKNOWN,
                f"{direct.tokens_per_s:,.0f}",
                f"{parley.tokens_per_s:,.0f}",
                f"{parley.tokens_per_s / wanted:.0%}" if wanted is not None else UNKNOWN,
                *(ms(direct.gap, "p99") if paced else [UNKNOWN]),
                *(ms(parley.gap, "p50", "p99") if paced else [UNKNOWN, UNKNOWN]),
                f"{parley.tokens / parley.frames:.1f}" if parley.frames else UNKNOWN,
                f"{direct.requests_per_s:,.1f}",
                f"{parley.requests_per_s:,.1f}",
            ]
        )
    head = ["load", "bus", "tokens/s wanted", "direct", "Parley", "of what is wanted", "gap direct p99 (ms)"]
    head += ["gap Parley p50 (ms)", "p99", "tokens a frame", "requests/s direct", "Parley"]
    return table("Flow", head, rows)


def _accepting(run: Run) -> list[str]:
    rows = [
        [
            bus_run.bus.label,
            str(bus_run.burst.accepted),
            number(bus_run.burst.accepted_per_s),
            *ms(bus_run.burst.latency, "p50", "p99"),
            UNKNOWN if (settled := bus_run.burst.completeness.settled_s) is None else f"{settled:.1f}",
        ]
        for bus_run in run.buses
    ]
    head = ["bus", "prompts", "accepted/s", "202 p50 (ms)", "p99", "then answered and read back within (s)"]
    return table("Accepting prompts while nobody works on them", head, rows, words=1)


def _keeping_up(run: Run) -> list[str]:
    rows = []
    for bus_run, level in run.levels():
        lag, found = level.parley.lag, level.parley.outcome.completeness
        caught_up = lag.caught_up_s if lag is not None else None
        rows.append(
            [
                level.load.name,
                bus_run.bus.label,
                str(lag.behind) if lag is not None else UNKNOWN,
                f"{caught_up:.2f}" if caught_up is not None else UNKNOWN,
                str(found.answers),
                str(found.answers - len(found.wrong)),
                UNKNOWN if found.settled_s is None else f"{found.settled_s:.1f}",
            ]
        )
    head = ["load", "bus", "messages behind at the end", "caught up within (s)"]
    head += ["answers", "streamed as stored", "read back within (s)"]
    return table("Whether the read models keep up, and every answer, streamed and stored", head, rows)


def _overhead(direct: Spread | None, parley: Spread | None, name: str) -> str:
    if direct is None or parley is None:
        return UNKNOWN
    before, after = getattr(direct, name), getattr(parley, name)
    ratio = f" (×{after / before:,.0f})" if before > 0 else ""
    return f"+{number(after - before)}{ratio}"
