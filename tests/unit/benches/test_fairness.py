from __future__ import annotations

import asyncio
import re
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from backplane.ports.identifiers import new_id
from benches import __main__ as command_line
from benches.__main__ import app
from benches.answer import Answer
from benches.board import Board
from benches.bus import Bus
from benches.child import LoadFailed
from benches.client import Client
from benches.fairness import Beside, BusFairness, FairnessPlan, FairnessRun, fairness_plan, quick_fairness
from benches.fairness_load import LOAD, Light, flood
from benches.fairness_parley import shared_lanes, sharings
from benches.fairness_tables import chances, fairness_markdown
from benches.figures import Spread
from benches.load import Target
from benches.machine import Machine

TARGET = Target(host="127.0.0.1", port=1, key="k")


def some(p50: float) -> Spread:
    return Spread(count=12, p50=p50, p99=p50 * 2, most=p50 * 2)


def found(bus: Bus, wrong: list[str] | None = None) -> BusFairness:
    return BusFairness(
        bus=bus,
        partitions=4,
        alone=some(10),
        beside=Beside(waits={0: some(50), 1: some(60), 2: some(9000)}, before=950, after=500),
        in_order=Beside(waits={1: some(12_000)}, before=960, after=510),
        wrong=wrong or [],
    )


def run(wrong: list[str] | None = None) -> FairnessRun:
    machine = Machine(processor="A", cores=2, memory=2**34, system="Linux 6", python="3.11.7", load_average=0.5)
    return FairnessRun(
        machine=machine, plan=fairness_plan(list(Bus)), buses=[found(Bus.postgres, wrong), found(Bus.pulsar)]
    )


@pytest.mark.parametrize("partitions", [2, 3, 4, 8])
def test_tenants_share_as_many_lanes_as_they_can(partitions: int) -> None:
    seen = {shared_lanes(new_id(), new_id(), partitions) for _ in range(2000)}
    assert seen == set(sharings(partitions))


def test_everybody_shares_the_only_lane() -> None:
    assert shared_lanes(new_id(), new_id(), 1) == 1
    assert list(sharings(1)) == [1]


@pytest.mark.parametrize("partitions", [4, 8, 32])
def test_lanes_are_as_good_as_drawn_by_lot(partitions: int) -> None:
    pairs = partitions * (partitions - 1) / 2
    tried = chances(partitions)
    assert sum(tried.values()) == pytest.approx(1)
    assert tried.get(2, 0) == pytest.approx(1 / pairs, abs=0.02)
    assert tried[0] == pytest.approx((partitions - 2) * (partitions - 3) / 2 / pairs, abs=0.03)


def test_the_tables_have_the_buses_side_by_side() -> None:
    lines = fairness_markdown(run()).splitlines()
    assert "| alone | Postgres | – | 12 | 10.0 | 20.0 | ×1.0 | – | – | – |" in lines
    at = next(i for i, line in enumerate(lines) if line.startswith("| beside the flood, both lanes shared"))
    both = r"\| 1[4-9]% \| 12 \| 9,000\.0 \| 18,000\.0 \| ×900\.0 \| ×1\.3 \| 950 \| 500 \|"
    for line, bus in zip(lines[at : at + 2], ("Postgres", "Pulsar"), strict=True):
        assert re.fullmatch(rf"\| beside the flood, both lanes shared \| {bus} {both}", line)
    row = "| 100% | 12 | 12,000.0 | 24,000.0 | ×1,200.0 | ×1.0 | 960 | 510 |"
    assert f"| first in, first out: one partition | Pulsar {row}" in lines


def test_every_table_has_as_many_cells_as_columns() -> None:
    width = 0
    for line in fairness_markdown(run()).splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        width = width or line.count("|")
        assert line.count("|") == width, line


def test_what_nobody_measured_is_left_open() -> None:
    beside = Beside(waits={1: None}, before=1, after=1)
    nothing = found(Bus.postgres).model_copy(update={"alone": None, "beside": beside})
    lines = fairness_markdown(run().model_copy(update={"buses": [nothing]})).splitlines()
    assert "| alone | Postgres | – | – | – | – | – | – | – | – |" in lines
    assert not any("both lanes shared | Postgres" in line for line in lines)


def test_what_went_wrong_is_of_the_run() -> None:
    assert run().wrong == []
    assert run(["a worker died"]).wrong == ["Postgres: a worker died"]
    assert FairnessRun.model_validate_json(run().model_dump_json()) == run()


class Scripted:
    """Stands in for `Client`: the n-th prompt begins after n * ``step_s`` seconds."""

    def __init__(self, step_s: float = 0.0, whole: bool = True) -> None:
        self.submitted = 0
        self.answered = 0
        self._step_s = step_s
        self._whole = whole

    async def open(self, target: Target, load: object) -> Scripted:
        return self

    async def submit(self, into: Answer) -> str:
        await asyncio.sleep(0)
        self.submitted += 1
        return ""

    async def answer(self, into: Answer) -> None:
        self.answered += 1
        into.accepted = into.asked
        wait_s = self.answered * self._step_s
        await asyncio.sleep(wait_s)
        into.times, into.data = [into.asked + wait_s], [orjson.dumps({"text": "a"})]
        into.seqs = [LOAD.tokens if self._whole else 1]
        into.outcome = "completed"

    async def close(self) -> None:
        pass


def stand_in(monkeypatch: pytest.MonkeyPatch, scripted: Scripted) -> Scripted:
    monkeypatch.setattr(Client, "open", scripted.open)
    return scripted


@pytest.mark.parametrize("prompts", [1, 64, 150])
async def test_a_flood_is_as_large_as_it_was_wanted(monkeypatch: pytest.MonkeyPatch, prompts: int) -> None:
    scripted = stand_in(monkeypatch, Scripted())
    await flood(TARGET, prompts)
    assert scripted.submitted == prompts


async def test_a_flood_that_is_refused_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LoadFailed, match="no connection"):
        await flood(TARGET, 3)


async def test_a_light_tenant_asks_on_whatever_became_of_what_it_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted = stand_in(monkeypatch, Scripted(step_s=0.2))
    light = Light(TARGET, 3, 0.01)
    asking = asyncio.create_task(light.ask())
    await asyncio.sleep(0.1)
    assert scripted.answered == light.under_way == 3
    await asking
    assert light.under_way == 0
    assert light.wrong == []
    assert light.wait is not None
    assert light.wait.count == 3
    assert [light.wait.p50, light.wait.most] == pytest.approx([400, 600])


async def test_answers_that_are_not_whole_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, Scripted(whole=False))
    light = Light(TARGET, 1, 0)
    await light.ask()
    assert light.wrong == ["a light tenant's answer: completed, 1 tokens"]


async def test_answers_that_do_not_come_are_told() -> None:
    light = Light(TARGET, 2, 0)
    await light.ask()
    assert len(light.wrong) == 2
    assert light.wait is None


def test_it_is_measured_where_it_is_asked_for_and_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    async def measured(what: object, folder: Path, board: Board) -> FairnessRun:
        asked.append(what)
        return run(["a worker died"])

    monkeypatch.setattr(command_line, "_until_stopped", measured)
    result = CliRunner().invoke(app, ["--bus", "postgres", "--only", "fairness"])
    assert asked == [fairness_plan([Bus.postgres])]
    assert result.exit_code == 1
    assert "first in, first out" in result.output
    CliRunner().invoke(app, ["--bus", "postgres", "--only", "fairness", "--quick"])
    assert asked[1:] == [quick_fairness([Bus.postgres])]
    CliRunner().invoke(app, ["--bus", "postgres"])
    assert not isinstance(asked[2], FairnessPlan)
