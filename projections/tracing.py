"""Spans of what the read models take in."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from backplane.telemetry import traces
from event_schemas.codec import AnyEnvelope
from event_schemas.generation import TokensEmitted


def folded(envelopes: Sequence[AnyEnvelope], began: datetime) -> None:
    """These were committed just now, by a transaction that ``began`` then. One span a trace; none for tokens alone."""
    if not traces.are_kept():
        return
    types: dict[str, list[str]] = {}
    for envelope in envelopes:
        if envelope.traceparent is not None and not isinstance(envelope.data, TokensEmitted):
            types.setdefault(envelope.traceparent, []).append(envelope.type)
    for parent, names in types.items():
        about = {"parley.events": ",".join(names)}
        traces.begin("fold", about, kind=traces.Kind.CONSUMER, parent=parent, began=began).end()
