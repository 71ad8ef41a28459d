"""`parley audit verify`, on a machine that has nothing but the files it was given."""

from __future__ import annotations

import io
from pathlib import Path

import orjson
import pytest

from cli.main import app
from tests.unit.backplane.exported import KEY, LINES, Record

RECORD = Record.told()


@pytest.fixture(autouse=True)
def auditor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    # Settings that cannot be read would be found out.
    monkeypatch.setenv("PARLEY_SETTINGS", "not-there.toml")
    (tmp_path / "export.ndjson").write_bytes(b"".join(RECORD.file()))
    (tmp_path / "old.ndjson").write_bytes(b"".join(RECORD.file(to=10)))
    published = [orjson.dumps(each.json()) + b"\n" for each in RECORD.signed]
    (tmp_path / "kept.ndjson").write_bytes(b"".join(published))
    (tmp_path / "early.ndjson").write_bytes(published[0])
    (tmp_path / "pruned.ndjson").write_bytes(b"".join(RECORD.file(pruned=7)))
    (tmp_path / "empty.ndjson").touch()
    (tmp_path / "cut.ndjson").write_bytes(b"".join(RECORD.file())[:-2000])
    return tmp_path


def verify(*arguments: str, key: str = KEY.public) -> int:
    with pytest.raises(SystemExit) as ended:
        app(["audit", "verify", *arguments, "--key", key])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_what_is_right_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert verify("export.ndjson") == 0
    said = capsys.readouterr().out
    assert said.startswith(f"verified: tenant {RECORD.tenant_id}, lines 1 to {LINES}, 4 checkpoints; last signed at ")
    assert verify("export.ndjson", "--checkpoint", "kept.ndjson", key=KEY.public.upper()) == 0
    assert "4 checkpoints; 4 that were published elsewhere agree; last signed" in capsys.readouterr().out
    assert verify("old.ndjson") == 0


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"".join(RECORD.file()))))
    assert verify("-") == 0


@pytest.mark.parametrize(
    ("arguments", "key", "says"),
    [
        (("old.ndjson", "--checkpoint", "kept.ndjson"), KEY.public, "parley: old.ndjson: its tail was cut off"),
        (("cut.ndjson",), KEY.public, "the file was cut off"),
        (("export.ndjson",), "0" * 64, "not one of those to be trusted"),
        (("export.ndjson",), "mine", "a public key is 64 hexadecimal digits"),
        (("export.ndjson", "--checkpoint", "export.ndjson"), KEY.public, "export.ndjson: line 1 is no checkpoint"),
        (("export.ndjson", "--checkpoint", "empty.ndjson"), KEY.public, "empty.ndjson: holds no checkpoint"),
        (("pruned.ndjson", "--checkpoint", "early.ndjson"), KEY.public, "so none could be compared"),
        (("kept.ndjson",), KEY.public, "kept.ndjson: it does not begin with the header of an export"),
        (("empty.ndjson",), KEY.public, "does not begin with the header"),
        (("nowhere.ndjson",), KEY.public, "No such file"),
    ],
)
def test_what_is_wrong_is_one_line_and_an_exit_code(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], key: str, says: str
) -> None:
    assert verify(*arguments, key=key) == 1
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.splitlines()
    assert says in line
