from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benches import __main__ as command_line
from benches.__main__ import app, buses, stream_counts
from benches.bus import Bus
from benches.plan import plan, quick


def test_streams_are_a_list_of_numbers() -> None:
    assert stream_counts("1,64, 256") == [1, 64, 256]


@pytest.mark.parametrize("text", ["", "many", "1,", "0", "513", "-1"])
def test_other_streams_are_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        stream_counts(text)


def test_both_buses_are_measured_where_a_broker_can_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command_line, "missing", list)
    assert buses(None) == [Bus.postgres, Bus.pulsar]
    assert buses("pulsar, postgres,pulsar") == [Bus.pulsar, Bus.postgres]
    assert capsys.readouterr().err == ""


def test_elsewhere_only_the_postgres_bus_is_measured_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command_line, "missing", lambda: ["mvn"])
    assert buses(None) == [Bus.postgres]
    said = capsys.readouterr()
    assert "Pulsar lacks mvn" in said.err
    assert said.out == ""
    assert buses("postgres") == [Bus.postgres]
    with pytest.raises(typer.BadParameter, match="mvn"):
        buses("postgres,pulsar")


def test_other_buses_are_refused() -> None:
    with pytest.raises(typer.BadParameter, match="kafka"):
        buses("postgres,kafka")


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--bus", "postgres", "--json", str(tmp_path / "none" / "figures.json")])
    assert result.exit_code == 2


def test_the_quick_plan_has_all_that_the_whole_one_has() -> None:
    whole = plan([Bus.postgres], [1, 64], tokens=100, seconds=10, events=60_000)
    assert {bool(load.delay_s) for load in quick([Bus.postgres]).loads} == {bool(load.delay_s) for load in whole.loads}
    assert [load.clients for load in whole.loads] == [1, 64, 1, 32]
