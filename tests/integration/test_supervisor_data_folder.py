from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli import data_folder
from cli.failures import ConfigurationError

HOLD = """
import sys
from pathlib import Path
from cli import data_folder
with data_folder.lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""

HOLD_AND_LEAVE = """
import subprocess, sys
from pathlib import Path
from cli import data_folder
with data_folder.lock(Path(sys.argv[1])) as lock:
    subprocess.Popen(["sleep", "60"], pass_fds=(lock,))
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_parley_on_one_folder_is_refused(tmp_path: Path) -> None:
    with hold(tmp_path) as first:
        with (
            pytest.raises(
                data_folder.FolderInUse, match=rf"another Parley \(pid {first.pid}\) runs on this data folder"
            ),
            data_folder.lock(tmp_path),
        ):
            pass
        assert data_folder.holder(tmp_path) == first.pid
        first.kill()
    with data_folder.lock(tmp_path):
        assert data_folder.holder(tmp_path) == os.getpid()
    assert data_folder.holder(tmp_path) is None


def test_children_of_a_killed_parley_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that inherited the lock keeps the folder until it has ended."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD_AND_LEAVE, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        process.kill()
        process.wait()
        polls = []

        def polled(_: float) -> None:
            polls.append(data_folder.holder(tmp_path))
            os.killpg(process.pid, signal.SIGKILL)

        monkeypatch.setattr("cli.data_folder.time.sleep", polled)
        with data_folder.lock(tmp_path):
            assert data_folder.holder(tmp_path) == os.getpid()
        assert polls[0] == process.pid


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="PARLEY_DATA_DIR"), data_folder.lock(tmp_path / "file" / "data"):
        pass


def test_the_admin_key_is_for_its_owner_only(tmp_path: Path) -> None:
    file = data_folder.write_admin_key(tmp_path, "parley_first")
    file = data_folder.write_admin_key(tmp_path, "parley_second")
    assert file.read_text() == "parley_second\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["admin.key"]
