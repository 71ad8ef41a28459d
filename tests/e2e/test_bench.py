"""`python -m benches --quick`: every measurement once, with sizes that say nothing about speed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from benches.bus import Bus
from benches.measurements import BROKER, Run
from benches.plan import quick
from benches.record_alone import RecordRun, record_markdown
from benches.report import markdown


@pytest.fixture
def temporary(short_folder: Path) -> Path:
    """Where a bench makes its folder."""
    return Path(tempfile.mkdtemp(dir=short_folder))


def finished_bench(command: str, folder: Path, temporary: Path) -> subprocess.CompletedProcess[str]:
    """`python -m` with ``command`` in ``folder``; it went well, and was told by no setting of ours."""
    finished = subprocess.run(
        [sys.executable, "-m", *command.split()],
        cwd=folder,
        env={**os.environ, "PARLEY_BUS__PARTITIONS": "none", "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished


@pytest.mark.timeout(600)
@pytest.mark.parametrize("bus", [Bus.postgres, pytest.param(Bus.pulsar, marks=pytest.mark.pulsar)])
def test_everything_is_measured_and_right(bus: Bus, tmp_path: Path, temporary: Path) -> None:
    (tmp_path / "settings.toml").write_text("port = 'of whoever works in this folder'\n")
    finished = finished_bench(f"benches --quick --bus {bus.value} --json figures.json", tmp_path, temporary)
    run = Run.model_validate_json((tmp_path / "figures.json").read_text())
    assert finished.stdout == markdown(run) + "\n"
    plan = quick([bus])
    assert f"{plan.steps}/{plan.steps} {bus.label}: stopping Parley" in finished.stderr
    assert list(temporary.iterdir()) == []

    assert run.wrong == []
    (found,) = run.buses
    assert found.bus is bus
    assert (BROKER in found.idle_cpu) is (bus is Bus.pulsar)
    assert sum(part.events for part in found.record.projected) == plan.events
    assert {part.record for part in found.record.rebuilt} == {plan.events // 4, plan.events}
    assert found.burst.completeness.answers > 0
    for level in found.levels:
        assert level.parley.outcome.completeness.answers > 0
        assert level.parley.lag is not None
        assert level.parley.lag.caught_up_s is not None


@pytest.mark.timeout(180)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_that_it_started(number: signal.Signals, temporary: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "benches", "--quick", "--bus", "postgres"],
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        # Its Postgres runs, and a process that uses it.
        next(line for line in process.stderr if "projecting" in line)
        started = psutil.Process(process.pid).children(recursive=True)
        assert any("postgres" in each.name() for each in started)
        process.send_signal(number)
        output, errors = process.communicate(timeout=90)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert output == ""
    assert "benches: stopped, and all that it started" in errors.splitlines()
    assert psutil.wait_procs(started, timeout=10)[1] == []
    assert list(temporary.iterdir()) == []


@pytest.mark.timeout(600)
def test_what_becomes_of_events_is_measured_by_itself(tmp_path: Path, temporary: Path) -> None:
    finished = finished_bench("benches --only record --quick --bus postgres --json figures.json", tmp_path, temporary)
    run = RecordRun.model_validate_json((tmp_path / "figures.json").read_text())
    assert finished.stdout == record_markdown(run) + "\n"
    assert f"{run.plan.steps}/{run.plan.steps} " in finished.stderr
    (found,) = run.buses
    assert [part.events for part in found.record.projected] == [40, 360]
    for name in ("all", "event_log --check"):
        assert [each.record for each in found.record.rebuilt if each.name == name] == [40, 400]
    assert list(temporary.iterdir()) == []


@pytest.mark.timeout(240)
def test_the_door_is_measured_beside_no_proxy(tmp_path: Path, temporary: Path) -> None:
    finished = finished_bench("benches.doors --seconds 2 --no-litellm --streams 4", tmp_path, temporary)
    rows = [line.split(" | ") for line in finished.stdout.splitlines() if line.startswith(("| direct", "| Parley"))]
    assert [row[0] for row in rows] == ["| direct", "| Parley"] * 3
    for row in rows:
        first_token_ms, requests, tokens = row[1], row[3], row[4].partition(" ")[0]
        assert min(float(each.replace(",", "")) for each in (first_token_ms, requests, tokens)) > 0
    assert list(temporary.iterdir()) == []


@pytest.mark.timeout(300)
def test_what_more_workers_bring_is_measured(tmp_path: Path, temporary: Path) -> None:
    finished = finished_bench("benches.scale --seconds 4 --slots 1", tmp_path, temporary)
    rows = [line.strip("| ").split(" | ") for line in finished.stdout.splitlines() if line.startswith("| ")]
    levels = [row for row in rows if len(row) == 11 and row[0].isdigit()]
    assert [row[:2] for row in levels] == [["1", "1"], ["2", "2"], ["4", "4"]]
    for row in levels:
        answers, tokens, accepted, claim = (float(row[place].replace(",", "")) for place in (2, 3, 5, 7))
        assert min(tokens, accepted, claim) > 0
        assert answers >= 0
    costs = {row[0]: row[1:] for row in rows}
    for what in ("Postgres: tables of read_models, bytes", "Postgres: WAL, bytes", "Redis: memory, bytes"):
        assert len(costs[what]) == 2
    assert "worker 4" in costs
    assert list(temporary.iterdir()) == []
