"""Tables of the bus alone, and of what becomes of events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from benches.bus import Bus
from benches.delivery import Deliveries, Delivery
from benches.measurements import Run
from benches.record import Projected, Rebuilt, Record
from benches.tables import UNKNOWN, memory, mib, ms, table


def event_tables(run: Run) -> list[str]:
    return [*_deliveries(run), *record_tables(run.buses)]


class Recorded(Protocol):
    """What became of events on one bus."""

    @property
    def bus(self) -> Bus: ...

    @property
    def record(self) -> Record: ...


def record_tables(buses: Sequence[Recorded]) -> list[str]:
    return [*_projecting(buses), *_rebuilding(buses)]


def _deliveries(run: Run) -> list[str]:
    rows = []
    for bus_run in run.buses:
        bare = bus_run.deliveries.bare
        for title, way in _ways(bus_run.deliveries):
            rows.append(
                [
                    title,
                    bus_run.bus.label,
                    *ms(way.publish, "p50", "p99"),
                    *ms(way.receive, "p50", "p99"),
                    f"×{way.publish.p50 / bare.publish.p50:.1f}",
                    f"×{way.receive.p50 / bare.receive.p50:.1f}",
                ]
            )
    head = ["way", "bus", "publish p50", "p99", "publish to receive p50", "p99"]
    head += ["publish over bare", "publish to receive over bare"]
    return table("The bus alone, one message at a time (ms)", head, rows)


def _ways(deliveries: Deliveries) -> list[tuple[str, Delivery]]:
    return [
        ("Shared, as commands", deliveries.shared),
        ("Failover, as events", deliveries.failover),
        ("bare, without the bus", deliveries.bare),
    ]


def _projecting(buses: Sequence[Recorded]) -> list[str]:
    rows = []
    for part in range(len(buses[0].record.projected)):
        for bus_run in buses:
            found = bus_run.record.projected[part]
            rows.append(
                [
                    f"{found.events:,} events",
                    bus_run.bus.label,
                    f"{found.events / found.publish_s:,.0f}",
                    f"{found.seconds:.1f}",
                    f"{found.events_per_s:,.0f}",
                    *(_cpu(found, name) for name in ("projections", "postgres", "broker")),
                    memory(found.memory.get("projections")),
                ]
            )
    head = ["backlog", "bus", "published/s", "projected in (s)", "projected/s"]
    head += ["CPU an event (µs): projections", "postgres", "broker", "projections' RSS / PSS (MiB)"]
    return table("Events that wait on the bus, projected", head, rows)


def _cpu(found: Projected, name: str) -> str:
    return f"{found.cpu_s[name] / found.events * 1e6:.0f}" if name in found.cpu_s else UNKNOWN


def _rebuilding(buses: Sequence[Recorded]) -> list[str]:
    rows = []
    for at in range(len(buses[0].record.rebuilt)):
        for bus_run in buses:
            found = bus_run.record.rebuilt[at]
            smaller = smaller_of(bus_run, found)
            rows.append(
                [
                    f"`parley rebuild {found.name}`",
                    bus_run.bus.label,
                    f"{found.record:,}",
                    f"{found.seconds:.2f}",
                    f"{found.lines_per_s:,.0f}",
                    mib(found.peak_rss),
                    f"×{found.peak_rss / smaller.peak_rss:.2f}" if smaller is not None else UNKNOWN,
                ]
            )
    head = ["what", "bus", "record (events)", "took (s)", "events/s", "peak RSS (MiB)", "over the smaller record"]
    return table("Replayed from the record", head, rows)


def smaller_of(bus_run: Recorded, rebuilt: Rebuilt) -> Rebuilt | None:
    """The same with a smaller record; None where there was none."""
    same = (each for each in bus_run.record.rebuilt if each.name == rebuilt.name and each.record < rebuilt.record)
    return next(same, None)
