"""The list of projections. One that looks at another stands after it."""

from __future__ import annotations

from projections import (
    batch_failures,
    batches,
    collections,
    conversation_summaries,
    conversations,
    documents,
    generations,
    messages,
    persona_versions,
    token_batches,
    usage,
)
from projections.table import Projection

PROJECTIONS: tuple[Projection, ...] = (
    conversations.PROJECTION,
    conversation_summaries.PROJECTION,
    messages.PROJECTION,
    generations.PROJECTION,
    token_batches.PROJECTION,
    usage.PROJECTION,
    persona_versions.PROJECTION,
    collections.PROJECTION,
    documents.PROJECTION,
    batches.PROJECTION,
    batch_failures.PROJECTION,
)

EVENT_LOG = "event_log"
"""The record. It is what the others are rebuilt from, so it is verified, never rebuilt."""

MODELS: tuple[str, ...] = (EVENT_LOG, *(projection.name for projection in PROJECTIONS))
"""Every read model by name."""


def needed_for(model: str) -> tuple[Projection, ...]:
    """The projections that a replay of ``model`` has to fold: itself, and what it looks at.

    Raises:
        LookupError: there is no such projection.
    """
    wanted = {model}
    for projection in reversed(PROJECTIONS):
        if projection.name in wanted:
            wanted.update(projection.looks_at)
    if model not in {projection.name for projection in PROJECTIONS}:
        raise LookupError(f"no read model {model!r}; there are {', '.join(MODELS)}")
    return tuple(projection for projection in PROJECTIONS if projection.name in wanted)
