"""One request through cause and effect: what the log knows of its chain, without what anybody wrote."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from backplane.ports.database import Row

TOKENS = "tokens.emitted"


class _Cause(NamedTuple):
    id: UUID
    causation_id: UUID


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the log, or the many that tell the tokens of one attempt."""

    sequence: int
    id: UUID
    causation_id: UUID
    type: str
    subject: str
    actor: str
    source: str
    time: datetime
    facts: dict[str, Any]
    """Its payload without content."""
    lines: int = 1
    until: datetime | None = None
    """Of many lines: the time of the last."""
    depth: int = 0
    """Causes before it in the chain."""

    @classmethod
    def of(cls, row: Row) -> Step:
        envelope = orjson.loads(bytes(row["envelope"]))
        facts = {name: value for name, value in envelope["data"].items() if name != "content"}
        return cls(
            row["sequence"],
            UUID(envelope["id"]),
            UUID(envelope["causationid"]),
            envelope["type"],
            envelope["subject"],
            envelope["actor"],
            envelope["source"],
            datetime.fromisoformat(envelope["time"]),
            facts,
        )


class Trace:
    """Takes the lines of one chain as they are read, and gives its steps."""

    def __init__(self) -> None:
        self._steps: list[Step] = []
        self._tokens: dict[tuple[str, object], int] = {}

    def take(self, rows: Iterable[Row]) -> None:
        """Tokens of one attempt become one step, so that an answer of an hour is no longer than a short one."""
        for row in rows:
            step = Step.of(row)
            if not step.type.startswith(TOKENS):
                self._steps.append(step)
                continue
            at = self._tokens.setdefault((step.subject, step.facts.get("attempt")), len(self._steps))
            if at == len(self._steps):
                self._steps.append(replace(step, until=step.time))
            else:
                first = self._steps[at]
                until = max(first.until or first.time, step.time)
                self._steps[at] = replace(first, lines=first.lines + 1, until=until, time=min(first.time, step.time))

    def steps(self) -> Sequence[Step]:
        """By time, but no effect before its cause, although clocks differ and topics overtake one another."""
        by_id = {step.id: step for step in self._steps}
        placed: dict[UUID, Step] = {}
        for step in sorted(self._steps, key=lambda step: (step.time, step.sequence)):
            waiting = [step]
            while (cause := by_id.get(waiting[-1].causation_id)) is not None and cause.id not in placed:
                if cause in waiting:
                    break  # the first of a chain causes itself
                waiting.append(cause)
            for each in reversed(waiting):
                if each.id not in placed:
                    cause = placed.get(each.causation_id)
                    placed[each.id] = replace(each, depth=0 if cause is None else cause.depth + 1)
        return list(placed.values())
