from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benches.__main__ import app, stream_counts


def test_streams_are_a_list_of_numbers() -> None:
    assert stream_counts("1,64, 256") == [1, 64, 256]


@pytest.mark.parametrize("text", ["", "many", "1,", "0", "513", "-1"])
def test_other_streams_are_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        stream_counts(text)


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--json", str(tmp_path / "none" / "figures.json")])
    assert result.exit_code == 2
