from __future__ import annotations

import pytest

from benches.burst import Burst
from benches.bus import Bus
from benches.completeness import Completeness
from benches.cost import cost
from benches.delivery import Deliveries, Delivery
from benches.driver import Outcome
from benches.figures import Figures, Spread
from benches.lag import Lag
from benches.load import Load
from benches.machine import Machine
from benches.measurements import BROKER, CLIENT, BusRun, Level, Measured, Run
from benches.plan import plan
from benches.processes import Memory, Reading
from benches.record import Projected, Rebuilt, Record
from benches.report import markdown

MIB = 2**20


def some(p50: float, count: int = 100) -> Spread:
    return Spread(count=count, p50=p50, p99=p50 * 2, most=p50 * 3)


def measured(
    requests: int,
    tokens: int,
    gateway_s: float,
    first_ms: float,
    wrong: list[str] | None = None,
    lag: Lag | None = None,
) -> Measured:
    first = some(first_ms, requests)
    figures = Figures(
        first_token=first,
        accepted=first,
        whole=first,
        gap=first,
        requests=requests,
        tokens=tokens,
        frames=tokens // 2,
        unavailable={"projections": 2, "postgres": 1},
        seconds=10,
    )
    return Measured(
        outcome=Outcome(
            figures=figures, completeness=Completeness(answers=requests + 2, wrong=wrong or [], settled_s=0.5)
        ),
        cpu_s={"gateway": gateway_s, "worker": gateway_s, BROKER: 5.0, CLIENT: 0.5},
        elsewhere_s=1.0,
        memory={"gateway": Memory(rss=100 * MIB, pss=None), CLIENT: Memory(rss=30 * MIB, pss=20 * MIB)},
        lag=lag,
    )


def bus_run(bus: Bus, first_ms: float, wrong: list[str] | None = None) -> BusRun:
    one, many, _, closed = plan([bus], [1, 256], tokens=100, seconds=10, events=1000).loads
    way = Delivery(publish=some(1), receive=some(3))
    idle = {"gateway": 0.01, "worker": 0.01} | ({BROKER: 0.02} if bus is Bus.pulsar else {})
    rebuilt = [
        Rebuilt(name="all", record=record, lines=5 * record, seconds=record / 10_000, peak_rss=size * MIB)
        for record, size in ((250, 100), (1000, 130))
    ]
    return BusRun(
        bus=bus,
        deliveries=Deliveries(shared=way, failover=way, bare=Delivery(publish=some(0.5), receive=some(2)), wrong=[]),
        record=Record(
            projected=[
                Projected(
                    events=1000,
                    publish_s=0.5,
                    seconds=0.25,
                    cpu_s={"projections": 0.1, "postgres": 0.2},
                    memory={"projections": Memory(rss=90 * MIB, pss=80 * MIB)},
                )
            ],
            rebuilt=rebuilt,
            wrong=[],
        ),
        idle_cpu=idle,
        idle_memory={"gateway": Memory(rss=90 * MIB, pss=80 * MIB)},
        levels=[
            Level(load=one, direct=measured(5, 500, 0, 0.2), parley=measured(5, 500, 0.1, first_ms)),
            Level(
                load=many,
                direct=measured(1000, 128_000, 0, 0.2),
                parley=measured(1000, 120_000, gateway_s=6.1, first_ms=12.2, wrong=wrong),
            ),
            Level(
                load=closed,
                direct=measured(9000, 180_000, 0, 0.1),
                parley=measured(500, 10_000, 0.6, 50, lag=Lag(behind=40, caught_up_s=0.25)),
            ),
        ],
        burst=Burst(
            seconds=2,
            accepted=800,
            latency=some(40),
            completeness=Completeness(answers=801, wrong=[], settled_s=4),
        ),
        deaths=[],
    )


def run(wrong: list[str] | None = None) -> Run:
    machine = Machine(processor="A", cores=2, memory=2**34, system="Linux 6", python="3.11.7", load_average=0.5)
    return Run(machine=machine, buses=[bus_run(Bus.postgres, 8.2, wrong), bus_run(Bus.pulsar, 20.2)])


def test_costs_are_what_is_left_without_idleness_and_requests() -> None:
    found = cost(bus_run(Bus.postgres, 8.2))
    assert found.request["gateway"] == pytest.approx((0.6 - 0.1) / 500)
    assert found.token["256 streams"]["gateway"] == pytest.approx((6.1 - 0.1 - 1000 * 0.001) / 120_000)
    assert found.whole["256 streams"]["gateway"] == pytest.approx((6.1 - 0.1) / 120_000)


def test_the_tables_have_the_buses_side_by_side() -> None:
    lines = markdown(run()).splitlines()
    row = "| 12.2 | 24.4 | 12.2 | 24.4 | +12.0 (×61) | +24.0 (×61) | 3 |"
    at = lines.index(f"| 256 streams | Postgres | 1000 | 0.20 | 0.40 {row}")
    assert lines[at + 1] == f"| 256 streams | Pulsar | 1000 | 0.20 | 0.40 {row}"
    assert (
        "| 256 streams | Pulsar | 12,800 | 12,800 | 12,000 | 94% | 0.40 | 12.2 | 24.4 | 2.0 | 100.0 | 100.0 |" in lines
    )
    assert "| Pulsar | 800 | 400.0 | 40.0 | 80.0 | 4.0 |" in lines
    assert "| 32 clients, no delay | Pulsar | 40 | 0.25 | 502 | 502 | 0.5 |" in lines
    assert "| Failover, as events | Pulsar | 1.0 | 2.0 | 3.0 | 6.0 | ×2.0 | ×1.5 |" in lines
    assert "| 1,000 events | Postgres | 2,000 | 0.2 | 4,000 | 100 | 200 | – | 90 / 80 |" in lines
    assert "| `parley rebuild all` | Pulsar | 1,000 | 0.10 | 50,000 | 130 | ×1.30 |" in lines
    assert "| gateway | Postgres | 90 / 80 | 100 / – | 100 / – | 100 / – |" in lines


def test_the_broker_is_none_of_our_processes() -> None:
    lines = markdown(run()).splitlines()
    assert "| **all of Parley** | Pulsar | 2% | 122% | 12% |" in lines
    assert "| broker | Pulsar | 50% | 50% | 50% |" in lines
    assert not any(line.startswith("| broker | Postgres") for line in lines)


def test_aims_are_met_or_missed_by_so_much() -> None:
    lines = markdown(run()).splitlines()
    first = "| first token over the direct call, p50, 1 stream | at most 10.0 ms / 15.0 ms "
    assert f"{first}| 8.0 ms | met | 20.0 ms | missed by 5.0 ms (33%) |" in lines
    assert (
        "| 256 streams: tokens/s of what is wanted | at least 95.0 % " + "| 93.8 % | missed by 1.2 % (1%) " * 2 + "|"
        in lines
    )
    assert (
        "| the same, 1 client without delay | at most 10.0 ms / 15.0 ms | – | not measured | – | not measured |"
        in lines
    )
    assert (
        "| projections keep up: nothing left after that loop | at most 1.0 s | 0.25 s | met | 0.25 s | met |" in lines
    )
    cpu = "| CPU a streamed token at 256 streams, all of Parley | at most 100.0 µs "
    assert f"{cpu}| 83.3 µs | met | 83.3 µs | met |" in lines
    assert (
        "| its peak memory over that of a quarter of the record | at most 1.2× "
        + "| 1.3× | missed by 0.10× (8%) " * 2
        + "|"
        in lines
    )


def test_projections_that_never_catch_up_miss_their_aim() -> None:
    never = run()
    level = never.buses[0].levels[-1]
    lost = level.parley.model_copy(update={"lag": Lag(behind=9, caught_up_s=None)})
    never.buses[0].levels[-1] = level.model_copy(update={"parley": lost})
    row = next(line for line in markdown(never).splitlines() if line.startswith("| projections keep up"))
    assert "never" in row
    assert "missed" in row


def test_every_table_has_as_many_cells_as_columns() -> None:
    width = 0
    for line in markdown(run()).splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        width = width or line.count("|")
        assert line.count("|") == width, line


def test_what_went_wrong_is_of_the_run() -> None:
    assert run().wrong == []
    assert run(["an answer: no end"]).wrong == ["Postgres: 256 streams, Parley: an answer: no end"]


def test_a_run_survives_its_json() -> None:
    assert Run.model_validate_json(run().model_dump_json()) == run()


def test_readings_are_told_apart_from_the_rest_of_the_machine() -> None:
    before = Reading({"gateway": 1.0}, machine=100.0)
    after = Reading({"gateway": 1.5, "client": 9.0}, machine=102.0)
    assert after.since(before) == {"gateway": 0.5}
    assert after.elsewhere_since(before) == pytest.approx(1.5)


def test_what_is_wanted_of_a_load() -> None:
    assert Load(clients=256, tokens=100, delay_s=0.02, seconds=1).wanted_tokens_per_s == pytest.approx(12_800)
    assert Load(clients=32, tokens=20, delay_s=0, seconds=1).wanted_tokens_per_s is None
