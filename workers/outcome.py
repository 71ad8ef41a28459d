"""How an attempt came out, where no event says it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import Enum
from uuid import UUID

from prometheus_client import Counter

from backplane.ports.key_room import Full
from event_schemas.payload import Usage
from workers.shape import Unfit

logger = logging.getLogger(__name__)

outcomes = Counter("parley_worker_attempts_total", "Attempts by how they ended", ["outcome"])
_used = Counter(
    "parley_worker_used_tokens_total",
    "Tokens that attempts used which came to an end, by what the provider counted, else estimated",
    ["pool", "model", "kind"],
)


def used(pool: str, model: str, usage: Usage) -> None:
    """An attempt ended. ``model`` is a name in the settings."""
    _used.labels(pool, model, "input").inc(usage.input_tokens)
    _used.labels(pool, model, "output").inc(usage.output_tokens)


class Stop(Enum):
    """Why an attempt is told to stop."""

    CANCELLED = "its cancel was asked for"
    FENCED = "it is no longer this worker's"
    DRAINED = "the worker is closing"


@dataclass(frozen=True, slots=True)
class Broken:
    """The backend broke off ``attempt`` after ``output_tokens`` deltas, None where it never began; another attempt may
    succeed. ``away``: rather in another pool."""

    attempt: int
    output_tokens: int | None
    reason: str
    detail: str
    away: bool = False

    def log(self, generation_id: UUID) -> None:
        about = {"generation_id": str(generation_id), "attempt": self.attempt, "reason": self.reason}
        logger.warning("attempt broken", extra={"action": "attempt_broken", "cause": self.detail} | about)


@dataclass(frozen=True, slots=True)
class Unstarted:
    """Nobody could be asked any more, as ``full`` says; nothing was said."""

    full: Full


@dataclass(frozen=True, slots=True)
class Repair:
    """What it answered does not fit its schema, and is to be asked for again. ``usage`` is what it used."""

    unfit: Unfit
    usage: Usage
