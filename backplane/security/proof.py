"""Verifying an export with public keys alone: what is first wrong in it, in words of what was done to it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from backplane.security.chain import BEGINNING, Broken, Head, follow, next_hash
from backplane.security.checkpoint import Checkpoint, Untrusted
from backplane.security.export import Entry, Header, NotOfAnExport, parse


class Tampered(Exception):
    """The export does not say what was signed. The message names the first line that is wrong, and what was done."""


@dataclass(frozen=True, slots=True)
class Proved:
    """What an export that verifies holds."""

    header: Header
    first: int
    """Sequence of its first line."""
    checkpoints: int
    signed_at: datetime
    """When its last line was signed."""
    keys: frozenset[str]
    """Public keys that signed it."""
    published: int
    """Checkpoints that were published elsewhere and agree with it."""


class _At(NamedTuple):
    place: int
    """Line of the file, from 1."""
    said: Entry | Checkpoint


def verify(file: Iterable[bytes], trusted: Collection[str], published: Sequence[Checkpoint] = ()) -> Proved:
    """Read an export, line by line, once.

    ``trusted`` are public keys; ``published`` are checkpoints that were kept elsewhere, which show a tail that was cut
    off, or an older copy that was put in its place. Raises NotOfAnExport, Tampered.
    """
    lines = iter(file)
    header = Header.parse(next(lines, b""))
    return _Walk(header, trusted, _of_tenant(published, header, trusted)).through(_parsed(lines))


def _of_tenant(published: Sequence[Checkpoint], header: Header, trusted: Collection[str]) -> list[Checkpoint]:
    wanted = [each for each in published if each.tenant_id == header.tenant_id]
    if published and not wanted:
        raise NotOfAnExport(f"no published checkpoint is of its tenant, {header.tenant_id}")
    for each in wanted:
        try:
            each.check(trusted)
        except Untrusted as error:
            raise Tampered(f"the published checkpoint of line {each.sequence} {error}") from None
    return wanted


def _parsed(lines: Iterable[bytes]) -> Iterator[_At]:
    for place, raw in enumerate(lines, 2):
        try:
            yield _At(place, parse(raw))
        except NotOfAnExport as error:
            raise Tampered(f"line {place} of the file {error}") from None


class _Walk:
    def __init__(self, header: Header, trusted: Collection[str], published: Sequence[Checkpoint]) -> None:
        self._header = header
        self._trusted = trusted
        self._published: dict[int, list[Checkpoint]] = {}
        for each in published:
            self._published.setdefault(each.sequence, []).append(each)
        self._agreed = 0
        self._head = self._beginning()
        self._first = self._head.sequence + 1
        self._signed: list[Checkpoint] = []
        self._number = 0
        self._keys: set[str] = set()

    def _beginning(self) -> Head:
        mark = self._header.pruned
        if mark is None:
            return BEGINNING
        if mark.kind != "pruned" or mark.tenant_id != self._header.tenant_id:
            raise Tampered("the header says that the record's beginning was pruned, and nobody signed that")
        self._check(mark, 1)
        self._hold_against_published(mark.head)
        return mark.head

    def through(self, lines: Iterator[_At]) -> Proved:
        for at in lines:
            if isinstance(at.said, Checkpoint):
                self._vouched(at.said, at.place)
            else:
                self._entry(at.said, at.place, lines)
        return self._ended()

    def _entry(self, entry: Entry, place: int, rest: Iterator[_At]) -> None:
        try:
            self._head = follow(self._head, *entry)
        except Broken as broken:
            what = _what_was_done(self._head, entry, place, str(broken), rest)
            raise Tampered(f"{what} (line {place} of the file)") from None
        if entry.sequence > self._header.to:
            raise Tampered(f"line {entry.sequence} was added: the export ends at line {self._header.to}")
        self._hold_against_published(self._head)

    def _vouched(self, signed: Checkpoint, place: int) -> None:
        self._check(signed, place)
        if signed.tenant_id != self._header.tenant_id:
            raise Tampered(f"line {place} of the file is a checkpoint of another tenant, {signed.tenant_id}")
        if signed.sequence != self._head.sequence:
            raise Tampered(
                f"line {place} of the file is the checkpoint of line {signed.sequence} and stands after line"
                f" {self._head.sequence}: it was moved, or lines before it were removed or added"
            )
        if signed.head != self._head:
            raise Tampered(_chained_anew(self._signed[-1].sequence if self._signed else self._first - 1, signed))
        self._signed = [signed]
        self._number += 1
        self._keys.add(signed.key)

    def _check(self, signed: Checkpoint, place: int) -> None:
        try:
            signed.check(self._trusted)
        except Untrusted as error:
            raise Tampered(f"the checkpoint of line {signed.sequence} {error} (line {place} of the file)") from None

    def _hold_against_published(self, head: Head) -> None:
        for each in self._published.get(head.sequence, ()):
            if each.head != head:
                raise Tampered(
                    f"line {head.sequence} is not the one that was published on {_when(each)}: it, or lines before it,"
                    " were changed and signed anew, or another record was put in its place"
                )
            self._agreed += 1

    def _ended(self) -> Proved:
        last = self._head.sequence
        if last < self._header.to:
            raise Tampered(
                f"the file was cut off: it ends after line {last} of {self._header.to}; lines {last + 1} to"
                f" {self._header.to} were removed"
            )
        mark = self._header.pruned
        signed = self._signed[-1] if self._signed else mark
        if signed is None or signed.sequence != last:
            unsigned = self._first if signed is None else signed.sequence + 1
            raise Tampered(f"the file was cut off: no checkpoint signs its last lines, {unsigned} to {last}")
        for each in sorted(self._published.values(), key=lambda some: some[0].sequence)[-1:]:
            if each[0].sequence > last:
                raise Tampered(
                    f"its tail was cut off, or it is an older copy: it ends at line {last}, and line"
                    f" {each[0].sequence} was published on {_when(each[0])}"
                )
        keys = self._keys | ({mark.key} if mark is not None else set())
        return Proved(self._header, self._first, self._number, signed.time, frozenset(keys), self._agreed)


def _what_was_done(head: Head, entry: Entry, place: int, broken: str, rest: Iterator[_At]) -> str:
    expected = head.sequence + 1
    entries = ((at.place, at.said) for at in rest if isinstance(at.said, Entry))
    if entry.sequence < expected:
        return f"line {entry.sequence} was added or moved: it comes after line {head.sequence}"
    if entry.sequence > expected:
        moved = next((found for found, later in entries if later.sequence == expected), None)
        if moved is not None:
            return f"line {expected} was moved: it stands in line {moved} of the file"
        lines = (
            f"line {expected} was"
            if entry.sequence == expected + 1
            else f"lines {expected} to {entry.sequence - 1} were"
        )
        return f"{lines} removed"
    _, following = next(entries, (0, None))
    if following is not None and _follows(head.hash, following):
        # What comes next belongs here.
        swapped = _follows(following.hash, entry)
        return f"line {expected} was {'moved: it belongs after the next one' if swapped else 'added'}"
    if broken.startswith("cannot be read"):
        return f"line {expected} was changed: it {broken}"
    return f"line {expected} was changed, or one before it was removed: it does not follow from line {head.sequence}"


def _follows(previous: bytes, entry: Entry) -> bool:
    try:
        return next_hash(previous, entry.event) == entry.hash
    except ValueError:
        return False


def _chained_anew(after: int, signed: Checkpoint) -> str:
    lines = (
        f"line {signed.sequence} was"
        if signed.sequence == after + 1
        else f"one of the lines {after + 1} to {signed.sequence} was"
    )
    return (
        f"{lines} changed, removed, added or moved, and what follows was chained anew: line {signed.sequence} is not"
        f" the one that was signed on {_when(signed)}"
    )


def _when(signed: Checkpoint) -> str:
    return signed.time.isoformat(timespec="seconds")
