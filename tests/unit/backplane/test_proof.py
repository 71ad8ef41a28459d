"""Whoever tampers with an export is found, and what they did is named."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backplane.security.chain import BEGINNING, Head, next_hash
from backplane.security.checkpoint import Checkpoint, SigningKey
from backplane.security.export import FORMAT, Entry, Header, NotOfAnExport
from backplane.security.proof import Proved, Tampered, verify
from event_schemas.codec import encode
from tests.unit.backplane.exported import EVERY, KEY, LINES, Record, chained
from tests.unit.projections.story import Story

RECORD = Record.told()


def place(sequence: int) -> int:
    """Where a line of the log stands in the file, from 0."""
    return sequence + (sequence - 1) // EVERY


def proved(file: Sequence[bytes], *published: Checkpoint) -> Proved:
    return verify(file, {KEY.public}, published)


def test_what_was_not_touched_verifies() -> None:
    found = proved(RECORD.file(), *RECORD.signed)
    assert (found.first, found.header.to, found.checkpoints, found.published) == (1, LINES, 4, 4)
    assert found.keys == {KEY.public}
    assert found.signed_at == RECORD.signed[-1].time


def test_a_pruned_record_verifies_from_where_it_begins() -> None:
    found = proved(RECORD.file(pruned=7), *RECORD.signed[1:])
    assert (found.first, found.checkpoints, found.published) == (8, 3, 3)
    assert proved(RECORD.file(pruned=LINES)).first == LINES + 1
    # A published one of what is gone can be held against nothing, unless it is of the very line.
    assert proved(RECORD.file(pruned=7), RECORD.signed[0]).published == 0
    assert proved(RECORD.file(pruned=5), RECORD.signed[0]).published == 1


def test_what_is_sealed_may_be_cut_off_and_not_changed() -> None:
    def event(**content: str) -> bytes:
        return orjson.dumps({"data": {"content": {"commitment": "ab", **content}}})

    (entry,) = chained([event(sealed="x")])
    signed = KEY.sign(RECORD.tenant_id, Head(1, entry.hash))
    record = Record(RECORD.tenant_id, [entry], [signed])
    assert proved(record.file(to=1)).checkpoints == 1
    record.entries = [entry._replace(event=event(sealed_sha256=hashlib.sha256(b"x").hexdigest()))]
    assert proved(record.file(to=1)).checkpoints == 1
    for changed in (event(sealed="x").replace(b"ab", b"ac"), event(sealed="y"), event()):
        record.entries = [entry._replace(event=changed)]
        with pytest.raises(Tampered, match="line 1 was changed"):
            proved(record.file(to=1))


def change(file: list[bytes]) -> None:
    file[place(7)] = file[place(7)].replace(b'"model-1"', b'"model-2"')
    assert b"model-2" in file[place(7)]


def change_its_hash(file: list[bytes]) -> None:
    entry = RECORD.entries[6]
    file[place(7)] = entry._replace(hash=next_hash(bytes(32), entry.event)).encoded()


def change_into_nonsense(file: list[bytes]) -> None:
    file[place(7)] = file[place(7)].replace(b'"specversion"', b"specversion")


def delete(file: list[bytes]) -> None:
    del file[place(7)]


def delete_some(file: list[bytes]) -> None:
    del file[place(7) : place(10)]


def renumbered(file: list[bytes], by: int, after: int) -> None:
    for at, line in enumerate(file[1:], 1):
        if line.startswith(b'{"sequence"'):
            sequence = orjson.loads(line)["sequence"]
            if sequence > after:
                file[at] = RECORD.entries[sequence - 1]._replace(sequence=sequence + by).encoded()


def delete_and_renumber(file: list[bytes]) -> None:
    del file[place(7)]
    renumbered(file, -1, 7)


def insert(file: list[bytes]) -> None:
    file.insert(place(7), Entry(7, bytes(32), encode(Story().renamed("Mine"))).encoded())


def insert_and_renumber(file: list[bytes]) -> None:
    renumbered(file, 1, 6)
    insert(file)


def insert_again(file: list[bytes]) -> None:
    file.insert(place(9), file[place(7)])


def swap(file: list[bytes]) -> None:
    file[place(7)], file[place(8)] = file[place(8)], file[place(7)]


def swap_and_renumber(file: list[bytes]) -> None:
    seventh, eighth = RECORD.entries[6], RECORD.entries[7]
    file[place(7)] = eighth._replace(sequence=7).encoded()
    file[place(8)] = seventh._replace(sequence=8).encoded()


def move_far(file: list[bytes]) -> None:
    file.insert(place(17), file.pop(place(7)))


def truncate(file: list[bytes]) -> None:
    del file[place(13) :]


def cut_in_the_middle_of_a_line(file: list[bytes]) -> None:
    del file[place(13) :]
    file[-1] = file[-1][: len(file[-1]) // 2]


def cut_and_say_so_in_the_header(file: list[bytes]) -> None:
    file[:] = RECORD.file(to=13)


def add_after_the_end(file: list[bytes]) -> None:
    last = RECORD.entries[-1]
    event = encode(Story().renamed("Mine"))
    file.append(Entry(LINES + 1, next_hash(last.hash, event), event).encoded())


def rechain(file: list[bytes]) -> None:
    events = [entry.event for entry in RECORD.entries]
    events[6] = events[6].replace(b'"model-1"', b'"model-2"')
    file[:] = Record(RECORD.tenant_id, chained(events), RECORD.signed).file()


def rechain_and_leave_out_checkpoints(file: list[bytes]) -> None:
    events = [entry.event for entry in RECORD.entries]
    events[6] = events[6].replace(b'"model-1"', b'"model-2"')
    file[:] = Record(RECORD.tenant_id, chained(events), [RECORD.signed[0], RECORD.signed[-1]]).file()


def rechain_and_sign_with_another_key(file: list[bytes]) -> None:
    events = [entry.event for entry in RECORD.entries]
    events[6] = events[6].replace(b'"model-1"', b'"model-2"')
    entries = chained(events)
    own = SigningKey(secrets.token_hex(32))
    signed = [
        own.sign(RECORD.tenant_id, Head(each.sequence, entries[each.sequence - 1].hash)) for each in RECORD.signed
    ]
    file[:] = Record(RECORD.tenant_id, entries, [RECORD.signed[0], *signed[1:]]).file()


def edited(**fields: Any) -> Callable[[list[bytes]], None]:
    def edit(file: list[bytes]) -> None:
        at = place(10) + 1
        file[at] = orjson.dumps({"checkpoint": orjson.loads(file[at])["checkpoint"] | fields}) + b"\n"

    return edit


def take_all_checkpoints(file: list[bytes]) -> None:
    file[:] = [line for line in file if not line.startswith(b'{"checkpoint"')]


def move_a_checkpoint(file: list[bytes]) -> None:
    file.insert(place(8), file.pop(place(10) + 1))


def cut_the_beginning(file: list[bytes]) -> None:
    del file[1 : place(6)]


def cut_the_beginning_and_say_it_was_pruned(file: list[bytes]) -> None:
    cut_the_beginning(file)
    file[0] = Header(RECORD.tenant_id, LINES, datetime.now(UTC), RECORD.signed[0]).encoded()


def cut_the_beginning_and_sign_that(file: list[bytes]) -> None:
    cut_the_beginning(file)
    forged = replace(RECORD.signed[0], kind="pruned")
    file[0] = Header(RECORD.tenant_id, LINES, datetime.now(UTC), forged).encoded()


def give_it_to_another_tenant(file: list[bytes]) -> None:
    file[0] = file[0].replace(str(RECORD.tenant_id).encode(), str(UUID(int=5)).encode())


@pytest.mark.parametrize(
    ("tamper", "named"),
    [
        (change, r"^line 7 was changed.*\(line 9 of the file\)"),
        (change_its_hash, r"^line 7 was changed"),
        (change_into_nonsense, r"^line 7 was changed: it cannot be read"),
        (delete, r"^line 7 was removed"),
        (delete_some, r"^lines 7 to 9 were removed"),
        (delete_and_renumber, r"^line 7 was changed, or one before it was removed"),
        (insert, r"^line 7 was added"),
        (insert_and_renumber, r"^line 7 was added"),
        (insert_again, r"^line 7 was added or moved: it comes after line 8"),
        (swap, r"^line 7 was moved: it stands in line 10 of the file"),
        (swap_and_renumber, r"^line 7 was moved: it belongs after the next one"),
        (move_far, r"^line 7 was moved: it stands in line 21 of the file"),
        (truncate, r"cut off: it ends after line 12 of 20; lines 13 to 20 were removed"),
        (cut_in_the_middle_of_a_line, r"^line 15 of the file is not whole: the file was cut off"),
        (cut_and_say_so_in_the_header, r"cut off: no checkpoint signs its last lines, 11 to 13"),
        (add_after_the_end, r"^line 21 was added: the export ends at line 20"),
        (rechain, r"^one of the lines 6 to 10 was changed.*chained anew: line 10 is not the one that was signed"),
        (rechain_and_leave_out_checkpoints, r"^one of the lines 6 to 20 was changed"),
        (rechain_and_sign_with_another_key, r"^the checkpoint of line 10 is signed with the key .* not one of those"),
        (edited(sequence=9), r"^the checkpoint of line 9 was changed.*\(line 13 of the file\)"),
        (edited(hash="00" * 32), r"^the checkpoint of line 10 was changed"),
        (edited(time="2026-01-01T00:00:00.000000+00:00"), r"^the checkpoint of line 10 was changed"),
        (edited(signature="00" * 64), r"^the checkpoint of line 10 was changed"),
        (edited(more=1), r"^line 13 of the file is neither a line of the log nor a checkpoint"),
        (take_all_checkpoints, r"cut off: no checkpoint signs its last lines, 1 to 20"),
        (move_a_checkpoint, r"^line 10 of the file is the checkpoint of line 10 and stands after line 7"),
        (cut_the_beginning, r"^lines 1 to 5 were removed"),
        (cut_the_beginning_and_say_it_was_pruned, r"beginning was pruned, and nobody signed that"),
        (cut_the_beginning_and_sign_that, r"^the checkpoint of line 5 was changed"),
        (give_it_to_another_tenant, r"^line 7 of the file is a checkpoint of another tenant"),
    ],
)
def test_tampering_is_found_and_named(tamper: Callable[[list[bytes]], None], named: str) -> None:
    file = RECORD.file()
    tamper(file)
    with pytest.raises(Tampered, match=named):
        proved(file)


def test_a_tail_that_was_cut_off_is_shown_by_what_was_published() -> None:
    old = RECORD.file(to=10)
    assert proved(old).header.to == 10
    with pytest.raises(
        Tampered, match=r"tail was cut off, or it is an older copy: it ends at line 10, and line 20 was"
    ):
        proved(old, *RECORD.signed)


def test_an_old_copy_that_went_on_differently_is_shown_by_what_was_published() -> None:
    events = [entry.event for entry in RECORD.entries[:10]]
    events += [encode(fact) for _ in range(2) for fact in Story().whole()]
    entries = chained(events)
    # Whoever restored it has the signing service sign what follows.
    heads = [Head(entry.sequence, entry.hash) for entry in entries[EVERY - 1 :: EVERY]]
    other = Record(RECORD.tenant_id, entries, [KEY.sign(RECORD.tenant_id, head) for head in heads])
    assert proved(other.file(), *RECORD.signed[:2]).published == 2
    with pytest.raises(Tampered, match=r"^line 15 is not the one that was published"):
        proved(other.file(), *RECORD.signed)


def test_what_was_published_has_to_be_true_and_of_this_tenant() -> None:
    with pytest.raises(Tampered, match=r"^the published checkpoint of line 5 was changed"):
        proved(RECORD.file(), replace(RECORD.signed[0], hash="00" * 32))
    with pytest.raises(NotOfAnExport, match=f"no published checkpoint is of its tenant, {RECORD.tenant_id}"):
        proved(RECORD.file(), KEY.sign(UUID(int=3), BEGINNING))


def test_a_wrong_key_is_said() -> None:
    with pytest.raises(Tampered, match=f"line 5 is signed with the key {KEY.public}, which is not one of those"):
        verify(RECORD.file(), {SigningKey(secrets.token_hex(32)).public})


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ([], "does not begin with the header"),
        ([b"\x00\x01"], "does not begin with the header"),
        ([b'{"sequence":1}\n'], "does not begin with the header"),
        (RECORD.file()[1:], "does not begin with the header"),
        ([b'{"parley_export":%d}\n' % (FORMAT + 1)], "upgrade"),
        ([RECORD.file()[0].replace(str(RECORD.tenant_id).encode(), b"x")], "its header was changed"),
    ],
)
def test_what_is_no_export_is_said(file: list[bytes], named: str) -> None:
    with pytest.raises(NotOfAnExport, match=named):
        proved(file)


def said(file: Sequence[bytes]) -> list[Any]:
    return [orjson.loads(line) for line in file]


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_no_byte_can_be_changed_unseen(data: st.DataObject) -> None:
    file = RECORD.file()
    line = data.draw(st.integers(1, len(file) - 1))
    at = data.draw(st.integers(0, len(file[line]) - 2))
    byte = data.draw(st.integers(0, 255))
    changed = file[line][:at] + bytes([byte]) + file[line][at + 1 :]
    file[line] = changed
    try:
        proved(file)
    except Tampered:
        return
    assert said(file)[1:] == said(RECORD.file())[1:], "it was changed and verifies"
