"""An export of a tenant's record with its proofs, as NDJSON.

A header, then the log's lines as the API shows them, each checkpoint right after the line that it signs. The last line
is a checkpoint: nothing in the file is unsigned.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from backplane.security.checkpoint import Checkpoint

FORMAT = 1

_ENTRY = re.compile(rb'\{"sequence":([1-9][0-9]{0,18}),"hash":"([0-9a-f]{64})","event":(\{.*\})\}', re.DOTALL)


class NotOfAnExport(ValueError):
    """A line that no export has. The message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Header:
    """The first line: whose record it is, and from where to where it goes."""

    tenant_id: UUID
    to: int
    """Sequence of the last line."""
    made_at: datetime
    pruned: Checkpoint | None
    """Of a record whose beginning was pruned: what signs where it begins."""

    def encoded(self) -> bytes:
        said = {
            "parley_export": FORMAT,
            "tenant_id": str(self.tenant_id),
            "to": self.to,
            "made_at": self.made_at,
            "pruned": None if self.pruned is None else self.pruned.json(),
        }
        return orjson.dumps(said) + b"\n"

    @classmethod
    def parse(cls, raw: bytes) -> Header:
        """Raises NotOfAnExport."""
        try:
            given = orjson.loads(raw)
        except orjson.JSONDecodeError:
            given = None
        match given:
            case {"parley_export": int(version)} if version > FORMAT:
                raise NotOfAnExport(f"it is of the format {version}; this release reads {FORMAT}: upgrade it")
            case {
                "parley_export": 1,
                "tenant_id": str(tenant_id),
                "to": int(to),
                "made_at": str(made_at),
                "pruned": pruned,
            }:
                try:
                    beginning = None if pruned is None else Checkpoint.parse(pruned)
                    return cls(UUID(tenant_id), to, datetime.fromisoformat(made_at), beginning)
                except ValueError as error:
                    raise NotOfAnExport(f"its header was changed: {error}") from None
        raise NotOfAnExport("it does not begin with the header of an export; make one with `parley audit export`")


class Entry(NamedTuple):
    """A line of the log."""

    sequence: int
    hash: bytes
    event: bytes

    def encoded(self) -> bytes:
        return b'{"sequence":%d,"hash":"%s","event":%s}\n' % (self.sequence, self.hash.hex().encode(), self.event)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Entry:
        """From its row."""
        return cls(row["sequence"], bytes(row["hash"]), bytes(row["envelope"]))


def encoded(signed: Checkpoint) -> bytes:
    """A checkpoint's line."""
    return orjson.dumps({"checkpoint": signed.json()}) + b"\n"


def parse(raw: bytes) -> Entry | Checkpoint:
    """A line after the header. Raises NotOfAnExport."""
    entry = _ENTRY.fullmatch(raw.rstrip(b"\r\n"))
    if entry is not None:
        return Entry(int(entry[1]), bytes.fromhex(entry[2].decode()), entry[3])
    try:
        match orjson.loads(raw):
            case {"checkpoint": signed, **others} if not others:
                return Checkpoint.parse(signed)
    except ValueError:
        pass
    if not raw.endswith(b"\n"):
        raise NotOfAnExport("is not whole: the file was cut off")
    raise NotOfAnExport("is neither a line of the log nor a checkpoint: it was changed or added")
