"""What followers are shown of an ending."""

from __future__ import annotations

from typing import Any

from backplane.ports.token_stream import Frame, Kind
from event_schemas.codec import AnyEnvelope
from event_schemas.generation import GenerationCancelled, GenerationCompleted, GenerationFailed
from workers.deltas import Deltas


def terminal_frame(event: AnyEnvelope, said: Deltas | None = None) -> Frame:
    """The frame of a terminal event; ``said`` is what its attempt said, where that is at hand."""
    ended = event.data
    assert isinstance(ended, (GenerationCompleted, GenerationFailed, GenerationCancelled))
    cost = ended.usage.cost_usd
    detail: dict[str, Any] = {
        "model": ended.model,
        "usage": ended.usage.model_dump() | {"cost_usd": None if cost is None else f"{cost:f}"},
        "served": ended.served and {"pool": ended.served.pool, "model": ended.served.model},
    }
    match ended:
        case GenerationCompleted():
            kind = Kind.COMPLETED
            detail["finish_reason"] = ended.finish_reason
            if ended.json_span is not None:
                detail["json_span"] = ended.json_span
            if ended.stopped_by is not None:
                detail["stopped_by"] = ended.stopped_by
            if said is not None and said.sources:
                detail["sources"] = [one.model_dump(mode="json") for one in said.sources]
            if said is not None and said.source_notes:
                detail["source_notes"] = list(said.source_notes)
        case GenerationFailed():
            kind = Kind.FAILED
            detail |= {"reason": ended.reason, "detail": ended.detail}
        case GenerationCancelled():
            kind = Kind.CANCELLED
    return Frame(kind, ended.attempt, ended.deltas, detail=detail)
