"""Sealed states at rest: who may read them, how many there may be, and what a killed process leaves."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from backplane.security.content import CannotRead, DataKey
from backplane.security.sealed_file import sealed_bytes
from tests.data_keys import data_key
from workers.state_files import StateFiles

ABOUT = b"this model"
TEXT = b"what the engine has read " * 40
MOST = 3 * sealed_bytes(len(TEXT))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "suspended" / "local"


def put(files: StateFiles, conversation_id: UUID, key: DataKey, text: bytes = TEXT) -> int | None:
    plain = files.new_plain()
    plain.write_bytes(text)
    try:
        return files.put(conversation_id, plain, key, ABOUT)
    finally:
        plain.unlink()


def taken(files: StateFiles, conversation_id: UUID) -> Path:
    found = files.take(conversation_id)
    assert found is not None
    return found


def everything(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_was_put_can_be_taken_once(folder: Path) -> None:
    files, conversation, key = StateFiles(folder, MOST), uuid4(), data_key(uuid4())
    assert files.take(conversation) is None
    assert put(files, conversation, key) == 0
    (resting,) = everything(folder)
    assert resting == folder / str(conversation)
    assert TEXT[:20] not in resting.read_bytes()
    sealed = taken(files, conversation)
    assert files.take(conversation) is None
    plain = files.open(sealed, key, ABOUT)
    assert plain.read_bytes() == TEXT
    assert everything(folder) == [plain]
    files.close()
    assert everything(folder) == []
    assert list(folder.iterdir()) == []


def test_nobody_else_may_look(folder: Path) -> None:
    folder.mkdir(parents=True, mode=0o755)
    files, key = StateFiles(folder, MOST), data_key(uuid4())
    put(files, uuid4(), key)
    for path in (folder.parent, folder, files.plain):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in everything(folder)] == [0o600]
    files.close()


@pytest.mark.parametrize("wrong", ["key", "about", "content"])
def test_what_does_not_open_is_gone(folder: Path, wrong: str) -> None:
    files, conversation, key = StateFiles(folder, MOST), uuid4(), data_key(uuid4())
    put(files, conversation, key)
    if wrong == "content":
        file = folder / str(conversation)
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CannotRead):
        files.open(
            taken(files, conversation),
            data_key(uuid4()) if wrong == "key" else key,
            b"another model" if wrong == "about" else ABOUT,
        )
    assert everything(folder) == []
    files.close()


def test_the_oldest_make_room(folder: Path) -> None:
    files, key = StateFiles(folder, MOST), data_key(uuid4())
    conversations = [uuid4() for _ in range(4)]
    for age, conversation in enumerate(conversations[:3]):
        assert put(files, conversation, key) == 0
        os.utime(folder / str(conversation), (age, age))
    assert files.conversations() == conversations[:3]
    assert put(files, conversations[0], key) == 0, "a newer one of the same conversation takes its place"
    assert files.conversations() == [conversations[1], conversations[2], conversations[0]]
    assert put(files, conversations[3], key) == 1
    assert files.conversations() == [conversations[2], conversations[0], conversations[3]]
    assert put(files, uuid4(), key, TEXT * 3) == 3
    files.close()


def test_what_is_larger_than_all_may_be_takes_nobodys_room(folder: Path) -> None:
    files, key = StateFiles(folder, MOST), data_key(uuid4())
    conversation = uuid4()
    put(files, conversation, key)
    assert put(files, uuid4(), key, TEXT * 4) is None
    assert files.conversations() == [conversation]
    files.close()


def test_what_a_killed_process_left_is_swept_and_what_rests_stays(folder: Path) -> None:
    conversation, key = uuid4(), data_key(uuid4())
    living = StateFiles(folder, MOST)
    put(living, conversation, key)
    (living.plain / "of-the-living").write_bytes(TEXT)
    killed = folder / "engine-killed"
    killed.mkdir()
    (killed / "plain").write_bytes(TEXT)
    (folder / "not-ours").write_text("x")
    other = StateFiles(folder, MOST)
    assert not killed.exists()
    assert (living.plain / "of-the-living").exists()
    assert other.conversations() == [conversation]
    assert other.open(taken(other, conversation), key, ABOUT).read_bytes() == TEXT
    living.close()
    other.close()


def test_what_is_dropped_is_gone(folder: Path) -> None:
    files, conversation = StateFiles(folder, MOST), uuid4()
    put(files, conversation, data_key(uuid4()))
    files.drop(conversation)
    files.drop(conversation)
    assert files.take(conversation) is None
    files.close()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(OSError):
        StateFiles(tmp_path / "data" / "suspended" / "local", MOST)
