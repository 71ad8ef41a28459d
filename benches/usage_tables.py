"""Tables of what processes use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benches.cost import cost, total
from benches.measurements import BROKER, CLIENT, BusRun, Measured, Run
from benches.tables import memory, table

_ALL = "**all of Parley**"


def usage_tables(run: Run) -> list[str]:
    return [*_cost(run), *_busy(run), *_memory(run)]


def _cost(run: Run) -> list[str]:
    costs = {bus_run.bus: cost(bus_run) for bus_run in run.buses}
    loads = [level.load.name for level in run.buses[0].levels if level.load.delay_s]
    rows = []
    for title, bus_run, names in _by_process(run):
        found = costs[bus_run.bus]
        rows.append(
            [
                title,
                bus_run.bus.label,
                f"{total(bus_run.idle_cpu, names) * 1e3:.1f}",
                f"{total(found.request, names) * 1e3:.2f}",
                *(f"{total(found.token.get(load, {}), names) * 1e6:.0f}" for load in loads),
                *(f"{total(found.whole.get(load, {}), names) * 1e6:.0f}" for load in loads),
            ]
        )
    head = ["process", "bus", "idle (ms/s)", "a request (ms)"]
    head += [f"a token at {load} (µs)" for load in loads]
    head += [f"with requests, at {load}" for load in loads]
    return table("CPU a request and a streamed token", head, rows)


def _busy(run: Run) -> list[str]:
    def share(measured: Measured, seconds: float) -> str:
        return f"{seconds / measured.outcome.figures.seconds:.0%}"

    rows = [
        [title, bus_run.bus.label, *(share(each.parley, total(each.parley.cpu_s, names)) for each in bus_run.levels)]
        for title, bus_run, names in _by_process(run)
    ]
    for bus_run in run.buses:
        others = (share(each.parley, each.parley.elsewhere_s) for each in bus_run.levels)
        rows.append(["other programs", bus_run.bus.label, *others])
    for bus_run in run.buses:
        alone = (share(each.direct, each.direct.cpu_s[CLIENT]) for each in bus_run.levels)
        rows.append(["the backend alone, with its caller", bus_run.bus.label, *alone])
    head = ["process", "bus", *(level.load.name for level in run.buses[0].levels)]
    return table("CPU in use (of one core)", head, rows)


def _memory(run: Run) -> list[str]:
    rows = []
    for title, bus_run, names in _by_process(run):
        if title != _ALL:
            columns = [bus_run.idle_memory, *(level.parley.memory for level in bus_run.levels)]
            rows.append([title, bus_run.bus.label, *(memory(column.get(names[0])) for column in columns)])
    head = ["process", "bus", "idle", *(level.load.name for level in run.buses[0].levels)]
    return table("Memory: RSS / PSS (MiB)", head, rows)


def _by_process(run: Run) -> Iterator[tuple[str, BusRun, Sequence[str]]]:
    """Each row's title, its bus, and which processes it is about; the buses side by side."""
    names = sorted({name for bus_run in run.buses for name in bus_run.ours})
    groups = [*((name, [name]) for name in names), (_ALL, names), (BROKER, [BROKER]), (CLIENT, [CLIENT])]
    for title, of in groups:
        for bus_run in run.buses:
            if title == CLIENT or any(name in bus_run.idle_cpu for name in of):
                yield title, bus_run, of
