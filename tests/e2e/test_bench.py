"""`python -m benches --quick`: every measurement once, with sizes that say nothing about speed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benches.bus import Bus
from benches.measurements import BROKER, Run
from benches.plan import quick
from benches.report import markdown


@pytest.mark.timeout(420)
@pytest.mark.parametrize("bus", [Bus.postgres, pytest.param(Bus.pulsar, marks=pytest.mark.pulsar)])
def test_everything_is_measured_and_right(bus: Bus, tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("port = 'of whoever works in this folder'\n")
    (tmp_path / "tmp").mkdir()
    finished = subprocess.run(
        [sys.executable, "-m", "benches", "--quick", "--bus", bus.value, "--json", "figures.json"],
        cwd=tmp_path,
        env={**os.environ, "PARLEY_BUS__PARTITIONS": "none", "TMPDIR": str(tmp_path / "tmp")},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    run = Run.model_validate_json((tmp_path / "figures.json").read_text())
    assert finished.stdout == markdown(run) + "\n"
    plan = quick([bus])
    assert f"{plan.steps}/{plan.steps} {bus.label}: stopping Parley" in finished.stderr
    assert list((tmp_path / "tmp").iterdir()) == []

    assert run.wrong == []
    (found,) = run.buses
    assert found.bus is bus
    assert (BROKER in found.idle_cpu) is (bus is Bus.pulsar)
    assert sum(part.events for part in found.record.projected) == plan.events
    assert {part.record for part in found.record.rebuilt} == {plan.events // 4, plan.events}
    assert found.burst.completeness.answers >= found.burst.accepted > 0
    for level in found.levels:
        assert level.parley.outcome.figures.requests > 0
        assert level.parley.lag is not None
        assert level.parley.lag.caught_up_s is not None
