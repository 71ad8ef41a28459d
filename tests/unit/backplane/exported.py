"""Exports of a record, made without a database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from backplane.security.chain import BEGINNING, Head, next_hash
from backplane.security.checkpoint import Checkpoint, SigningKey
from backplane.security.export import Entry, Header, encoded
from event_schemas.codec import encode
from tests.unit.projections.story import Story

KEY = SigningKey("5e" * 32)
LINES = 20
EVERY = 5


def chained(events: Sequence[bytes], begin: Head = BEGINNING) -> list[Entry]:
    entries = []
    for event in events:
        begin = Head(begin.sequence + 1, next_hash(begin.hash, event))
        entries.append(Entry(begin.sequence, begin.hash, event))
    return entries


@dataclass
class Record:
    """A tenant's log and its checkpoints, one after every fifth line."""

    tenant_id: UUID
    entries: list[Entry]
    signed: list[Checkpoint]

    @classmethod
    def told(cls) -> Record:
        story = Story()
        facts = [fact for _ in range(LINES // EVERY) for fact in story.whole()]
        entries = chained([encode(fact) for fact in facts])
        heads = [Head(entry.sequence, entry.hash) for entry in entries[EVERY - 1 :: EVERY]]
        return cls(story.tenant_id, entries, [KEY.sign(story.tenant_id, head) for head in heads])

    def file(self, *, pruned: int = 0, to: int = LINES) -> list[bytes]:
        mark = None
        if pruned:
            mark = KEY.sign(self.tenant_id, Head(pruned, self.entries[pruned - 1].hash), kind="pruned")
        lines = [Header(self.tenant_id, to, datetime.now(UTC), mark).encoded()]
        by_sequence = {each.sequence: each for each in self.signed}
        for entry in self.entries[pruned:to]:
            lines.append(entry.encoded())
            if entry.sequence in by_sequence:
                lines.append(encoded(by_sequence[entry.sequence]))
        return lines
