"""How far a generation has come, whatever order its facts are seen in: queued < running (by attempt) < ended.

A prompt that was handed on to another pool is the same prompt: what it says was said by its first command.
"""

from __future__ import annotations

from event_schemas.generation import (
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
    GenerationRestarted,
    GenerationStarted,
    SubmitPrompt,
    Terminal,
)
from event_schemas.payload import Payload
from projections.table import Row

QUEUED = "queued"
RUNNING = "running"
ENDED: dict[type[Payload], str] = {
    GenerationCompleted: "completed",
    GenerationFailed: "failed",
    GenerationCancelled: "cancelled",
}
"""Terminal events and the status that each gives."""

STAGES: frozenset[type[Payload]] = frozenset((SubmitPrompt, GenerationStarted, GenerationRestarted, *ENDED))
"""The facts that say how far a generation has come."""

_ENDED_STATUSES = frozenset(ENDED.values())


def is_beside(data: Payload) -> bool:
    """Whether it is of a generation beside the conversation, such as for its title: no message of it."""
    return getattr(data, "purpose", "answer") != "answer"


def ended(row: Row | None) -> bool:
    """Whether the generation of this row stands in a terminal state, which never changes again."""
    return row is not None and row["status"] in _ENDED_STATUSES


def advance(row: Row, data: SubmitPrompt | GenerationStarted | GenerationRestarted | Terminal) -> Row:
    """``row`` with the ``status``, ``attempt`` and ``model`` that stand after ``data``."""
    if ended(row):
        return row
    match data:
        case SubmitPrompt():
            return {**row, "model": data.model} if row["status"] == QUEUED else row
        case GenerationStarted() | GenerationRestarted():
            if data.attempt <= row["attempt"]:
                return row
            return {**row, "status": RUNNING, "attempt": data.attempt, "model": data.model}
        case _:
            attempt = max(row["attempt"], data.attempt)
            return {**row, "status": ENDED[type(data)], "attempt": attempt, "model": data.model}
