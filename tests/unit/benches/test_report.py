from __future__ import annotations

import pytest

from benches.__main__ import loads
from benches.completeness import Completeness
from benches.driver import Outcome
from benches.figures import Figures, Spread
from benches.load import Load
from benches.machine import Machine
from benches.processes import Memory, Reading
from benches.report import cost, markdown
from benches.run import CLIENT, Level, Measured, Run

MIB = 2**20


def measured(requests: int, tokens: int, gateway_s: float, first_ms: float, wrong: list[str] | None = None) -> Measured:
    first = Spread(count=requests, p50=first_ms, p99=first_ms * 2, most=first_ms * 3)
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
        cpu_s={"gateway": gateway_s, CLIENT: 0.5},
        elsewhere_s=1.0,
        memory={"gateway": Memory(rss=100 * MIB, pss=None), CLIENT: Memory(rss=30 * MIB, pss=20 * MIB)},
    )


def run(wrong: list[str] | None = None) -> Run:
    streams, closed = loads([64], tokens=100, seconds=10)[0], loads([64], tokens=100, seconds=10)[-1]
    return Run(
        machine=Machine(processor="A", cores=2, memory=2**34, system="Linux 6", python="3.11.7", load_average=0.5),
        idle_cpu={"gateway": 0.01},
        idle_memory={"gateway": Memory(rss=90 * MIB, pss=80 * MIB)},
        levels=[
            Level(
                load=streams,
                direct=measured(100, 32_000, 0, 0.2),
                parley=measured(100, 30_000, gateway_s=3.6, first_ms=12.2, wrong=wrong),
            ),
            Level(load=closed, direct=measured(9000, 180_000, 0, 0.1), parley=measured(500, 10_000, 2.6, 50)),
        ],
        deaths=[],
    )


def test_costs_are_what_is_left_without_idleness_and_requests() -> None:
    request, token = cost(run())
    assert request["gateway"] == pytest.approx((2.6 - 0.1) / 500)
    assert token["64 streams"]["gateway"] == pytest.approx((3.6 - 0.1 - 100 * 0.005) / 30_000)


def test_the_tables_say_it() -> None:
    lines = markdown(run()).splitlines()
    assert "| 64 streams | 100 | 0.20 | 0.40 | 12.2 | 24.4 | 12.2 | 24.4 | +12.0 (×61) | +24.0 (×61) | 3 |" in lines
    assert "| 64 streams | 3,200 | 3,200 | 3,000 | 94% | 0.40 | 12.2 | 24.4 | 2.0 | 10.0 | 10.0 |" in lines
    assert "| gateway | 10.0 | 5.00 | 100 |" in lines
    assert "| gateway | 36% | 26% |" in lines
    assert "| gateway | 90 / 80 | 100 / – | 100 / – |" in lines
    assert "| 64 streams | 102 | 102 | 0.5 |" in lines


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
    assert run(["an answer: no end, 0 tokens"]).wrong == ["64 streams, Parley: an answer: no end, 0 tokens"]


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
