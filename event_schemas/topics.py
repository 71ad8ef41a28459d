"""Where commands and events travel. Names are short here; an adapter adds what its bus needs around them."""

from __future__ import annotations

WORKERS = "workers"
"""The workers' subscription on command topics, on ``control`` and on ``ingestions``."""

PROJECTIONS = "projections"
"""The projections' subscription on every live topic."""

CONTROL = "control"
EVENTS = "events"

INGESTIONS = "ingestions"
"""Documents that are to become chunks of their collections."""

DEAD_LETTER_SUFFIX = "-dlq"
_COMMANDS = "commands-"


def commands(pool: str) -> str:
    """The command topic of a pool of workers."""
    return _COMMANDS + pool


def dead_letters(topic: str) -> str:
    """Where what cannot be handled on ``topic`` is kept, with its reason."""
    return topic + DEAD_LETTER_SUFFIX


def all_topics(pools: list[str]) -> list[str]:
    """Every live topic of an installation with these pools, without the dead-letter topics."""
    return [*(commands(pool) for pool in pools), CONTROL, INGESTIONS, EVENTS]
