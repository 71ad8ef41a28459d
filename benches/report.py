"""A run as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benches.figures import Spread
from benches.machine import Machine
from benches.processes import Memory
from benches.run import CLIENT, Level, Measured, Run

_UNKNOWN = "–"


def markdown(run: Run) -> str:
    """All of it, with a heading a table."""
    return "\n".join(
        [
            *_machine(run.machine),
            *_latency(run.levels),
            *_flow(run.levels),
            *_cost(run),
            *_busy(run),
            *_memory(run),
            *_completeness(run),
        ]
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table; the first column is text, the others are numbers."""
    line = "| " + " | ".join("---" if column == 0 else "---:" for column in range(len(head))) + " |"
    return ["| " + " | ".join(head) + " |", line, *("| " + " | ".join(row) + " |" for row in rows), ""]


def cost(run: Run) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """By process: CPU seconds a request, and, by load, CPU seconds a streamed token.

    What an idle Parley uses is taken off first. A request is one of the busiest load without delay, with its few
    frames of tokens; a token is what a load of streams used beyond its requests.
    """
    without_delay = [level for level in run.levels if not level.load.delay_s]
    busiest = max(without_delay, key=lambda level: level.load.clients)
    requests = busiest.parley.outcome.figures.requests
    request = {name: s / requests for name, s in _beyond_idle(run, busiest).items()} if requests else {}
    token = {}
    for level in run.levels:
        got = level.parley.outcome.figures
        if level.load.delay_s and got.tokens:
            token[level.load.name] = {
                name: (s - got.requests * request.get(name, 0.0)) / got.tokens
                for name, s in _beyond_idle(run, level).items()
            }
    return request, token


def _beyond_idle(run: Run, level: Level) -> dict[str, float]:
    seconds = level.parley.outcome.figures.seconds
    return {name: s - run.idle_cpu.get(name, 0.0) * seconds for name, s in level.parley.cpu_s.items()}


def _machine(machine: Machine) -> list[str]:
    return [
        f"{machine.processor}, {machine.cores} cores, {machine.memory / 2**30:.0f} GiB; {machine.system}; "
        f"Python {machine.python}; load average before the run {machine.load_average:.2f}.",
        "",
    ]


def _latency(levels: Sequence[Level]) -> list[str]:
    rows = []
    for level in levels:
        direct, parley = level.direct.outcome.figures.first_token, level.parley.outcome.figures.first_token
        accepted = level.parley.outcome.figures.accepted
        rows.append(
            [
                level.load.name,
                str(parley.count) if parley else "0",
                *_ms(direct, "p50", "p99"),
                *_ms(accepted, "p50", "p99"),
                *_ms(parley, "p50", "p99"),
                _overhead(direct, parley, "p50"),
                _overhead(direct, parley, "p99"),
                str(sum(level.parley.outcome.figures.unavailable.values())),
            ]
        )
    head = [
        "load",
        "prompts",
        "direct p50",
        "p99",
        "202 p50",
        "p99",
        "Parley p50",
        "p99",
        "overhead p50",
        "p99",
        "503s",
    ]
    return ["### Time to the first token (ms)", "", *table(head, rows)]


def _flow(levels: Sequence[Level]) -> list[str]:
    rows = []
    for level in levels:
        direct, parley = level.direct.outcome.figures, level.parley.outcome.figures
        wanted = level.load.wanted_tokens_per_s
        paced = wanted is not None
        rows.append(
            [
                level.load.name,
                f"{wanted:,.0f}" if wanted is not None else _UNKNOWN,
                f"{direct.tokens_per_s:,.0f}",
                f"{parley.tokens_per_s:,.0f}",
                f"{parley.tokens_per_s / wanted:.0%}" if wanted is not None else _UNKNOWN,
                *(_ms(direct.gap, "p99") if paced else [_UNKNOWN]),
                *(_ms(parley.gap, "p50", "p99") if paced else [_UNKNOWN, _UNKNOWN]),
                f"{parley.tokens / parley.frames:.1f}" if parley.frames else _UNKNOWN,
                f"{direct.requests_per_s:,.1f}",
                f"{parley.requests_per_s:,.1f}",
            ]
        )
    head = ["load", "tokens/s wanted", "direct", "Parley", "of what is wanted", "gap direct p99 (ms)"]
    head += ["gap Parley p50 (ms)", "p99", "tokens a frame", "requests/s direct", "Parley"]
    return ["### Flow", "", *table(head, rows)]


def _cost(run: Run) -> list[str]:
    request, token = cost(run)
    loads = list(token)

    def row(title: str, names: Sequence[str]) -> list[str]:
        return [
            title,
            f"{sum(run.idle_cpu.get(name, 0.0) for name in names) * 1e3:.1f}",
            f"{sum(request.get(name, 0.0) for name in names) * 1e3:.2f}",
            *(f"{sum(token[load].get(name, 0.0) for name in names) * 1e6:.0f}" for load in loads),
        ]

    head = ["process", "idle (ms/s)", "a request (ms)", *(f"a token at {load} (µs)" for load in loads)]
    names = sorted(run.idle_cpu)
    rows = [*(row(name, [name]) for name in names), row("**all of Parley**", names), row(CLIENT, [CLIENT])]
    return ["### CPU a request and a streamed token", "", *table(head, rows)]


def _busy(run: Run) -> list[str]:
    names = sorted(run.idle_cpu)

    def share(measured: Measured, seconds: float) -> str:
        return f"{seconds / measured.outcome.figures.seconds:.0%}"

    def row(title: str, names: Sequence[str]) -> list[str]:
        return [title, *(share(m, sum(m.cpu_s.get(name, 0.0) for name in names)) for m in measured)]

    measured = [level.parley for level in run.levels]
    direct = [level.direct for level in run.levels]
    rows = [
        *(row(name, [name]) for name in names),
        row("**all of Parley**", names),
        row(CLIENT, [CLIENT]),
        ["other programs", *(share(m, m.elsewhere_s) for m in measured)],
        ["the backend alone, with its caller", *(share(m, m.cpu_s[CLIENT]) for m in direct)],
    ]
    head = ["process", *(level.load.name for level in run.levels)]
    return ["### CPU in use (of one core)", "", *table(head, rows)]


def _memory(run: Run) -> list[str]:
    columns = [run.idle_memory, *(level.parley.memory for level in run.levels)]
    names = [*sorted(run.idle_memory), CLIENT]
    rows = [[name, *(_mib(column.get(name)) for column in columns)] for name in names]
    head = ["process", "idle", *(level.load.name for level in run.levels)]
    return ["### Memory: RSS / PSS (MiB)", "", *table(head, rows)]


def _completeness(run: Run) -> list[str]:
    rows = []
    for level in run.levels:
        found = level.parley.outcome.completeness
        settled = _UNKNOWN if found.settled_s is None else f"{found.settled_s:.1f}"
        rows.append([level.load.name, str(found.answers), str(found.answers - len(found.wrong)), settled])
    head = ["load", "answers", "streamed as stored", "read back within (s)"]
    return ["### Every answer, streamed and stored", "", *table(head, rows)]


def _ms(spread: Spread | None, *names: str) -> list[str]:
    return [_UNKNOWN if spread is None else _number(getattr(spread, name)) for name in names]


def _overhead(direct: Spread | None, parley: Spread | None, name: str) -> str:
    if direct is None or parley is None:
        return _UNKNOWN
    before, after = getattr(direct, name), getattr(parley, name)
    ratio = f" (×{after / before:,.0f})" if before > 0 else ""
    return f"+{_number(after - before)}{ratio}"


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 1 else f"{value:,.1f}"


def _mib(memory: Memory | None) -> str:
    if memory is None:
        return _UNKNOWN
    share = _UNKNOWN if memory.pss is None else f"{memory.pss / 2**20:.0f}"
    return f"{memory.rss / 2**20:.0f} / {share}"
