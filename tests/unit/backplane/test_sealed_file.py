"""Files under data keys: whoever changes one byte of them, or has another key, gets nothing."""

from __future__ import annotations

import itertools
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from backplane.security import sealed_file
from backplane.security.content import CannotRead, DataKey
from backplane.security.sealed_file import open_file, seal_file, sealed_bytes

PLACE = "conversation/a/b"
KEY = DataKey(b"k" * 32, PLACE)
ABOUT = b"this model, this window"
CHUNK = 64
TEXT = bytes(range(256))
HEADER, TAG = 64, 16

_files = itertools.count()


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed_file, "CHUNK_BYTES", CHUNK)


def sealed(folder: Path, text: bytes, key: DataKey = KEY, about: bytes = ABOUT) -> bytes:
    plain, target = folder / f"plain-{next(_files)}", folder / f"sealed-{next(_files)}"
    plain.write_bytes(text)
    seal_file(key, about, plain, target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    return target.read_bytes()


def opened(folder: Path, given: bytes, key: DataKey = KEY, about: bytes = ABOUT) -> bytes:
    source, plain = folder / f"given-{next(_files)}", folder / f"opened-{next(_files)}"
    source.write_bytes(given)
    open_file(key, about, source, plain)
    assert stat.S_IMODE(plain.stat().st_mode) == 0o600
    return plain.read_bytes()


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 7])
def test_what_was_sealed_opens_again(tmp_path: Path, size: int) -> None:
    given = sealed(tmp_path, TEXT[:size])
    assert len(given) == sealed_bytes(size)
    assert opened(tmp_path, given) == TEXT[:size]


def test_nothing_of_it_shows_and_no_two_are_alike(tmp_path: Path) -> None:
    one, other = sealed(tmp_path, b"secret " * 40), sealed(tmp_path, b"secret " * 40)
    assert b"secret" not in one
    assert one[:32] == other[:32], "what it is about is the same"
    assert one[32:64] != other[32:64]
    assert one[64:96] != other[64:96]


def test_every_byte_counts(tmp_path: Path) -> None:
    given = sealed(tmp_path, TEXT[: CHUNK + 5])
    for place in range(len(given)):
        changed = bytearray(given)
        changed[place] ^= 1
        with pytest.raises(CannotRead):
            opened(tmp_path, bytes(changed))


def test_every_cut_is_seen(tmp_path: Path) -> None:
    given = sealed(tmp_path, TEXT[: 2 * CHUNK])
    for end in range(len(given)):
        with pytest.raises(CannotRead):
            opened(tmp_path, given[:end])


def _chunks(given: bytes) -> tuple[bytes, list[bytes]]:
    body = given[HEADER:]
    return given[:HEADER], [body[at : at + CHUNK + TAG] for at in range(0, len(body), CHUNK + TAG)]


@pytest.mark.parametrize(
    "change",
    [
        lambda chunks: [chunks[1], chunks[0], *chunks[2:]],
        lambda chunks: [chunks[0], *chunks[2:]],
        lambda chunks: [chunks[0], chunks[0], *chunks[1:]],
        lambda chunks: [*chunks, chunks[-1]],
        lambda chunks: chunks[:-1],
        lambda chunks: chunks[::-1],
    ],
    ids=["swapped", "taken out", "doubled", "added", "without the last", "backwards"],
)
def test_chunks_stay_where_they_were(tmp_path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    header, chunks = _chunks(sealed(tmp_path, TEXT))
    assert len(chunks) == 4
    with pytest.raises(CannotRead, match="was changed"):
        opened(tmp_path, header + b"".join(change(chunks)))


def test_chunks_of_another_file_do_not_fit(tmp_path: Path) -> None:
    header, chunks = _chunks(sealed(tmp_path, TEXT))
    _, others = _chunks(sealed(tmp_path, TEXT))
    with pytest.raises(CannotRead):
        opened(tmp_path, header + b"".join([*chunks[:-1], others[-1]]))


@pytest.mark.parametrize("key", [DataKey(b"o" * 32, PLACE), DataKey(b"k" * 32, "conversation/a/c")])
def test_another_key_or_another_place_opens_nothing(tmp_path: Path, key: DataKey) -> None:
    with pytest.raises(CannotRead, match="another key"):
        opened(tmp_path, sealed(tmp_path, TEXT), key)


def test_what_is_about_something_else_says_so(tmp_path: Path) -> None:
    with pytest.raises(CannotRead, match="about something else"):
        opened(tmp_path, sealed(tmp_path, TEXT), about=b"another window")
    given = sealed(tmp_path, TEXT)
    pretending = sealed(tmp_path, TEXT, about=b"another window")[:32] + given[32:]
    with pytest.raises(CannotRead, match="was changed"):
        opened(tmp_path, pretending, about=b"another window")


def test_nothing_is_written_over(tmp_path: Path) -> None:
    for name in ("plain", "there"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(FileExistsError):
        seal_file(KEY, ABOUT, tmp_path / "plain", tmp_path / "there")
    with pytest.raises(FileExistsError):
        open_file(KEY, ABOUT, tmp_path / "plain", tmp_path / "there")
