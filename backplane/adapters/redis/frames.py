"""How frames stand in Redis: JSON arrays ``[kind, attempt, seq, deltas, detail]``, the last left out where empty."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson

from backplane.ports.token_stream import Frame, Kind

FIELD = b"f"
"""The one field of a stream's entries."""

_KINDS = {kind.value: kind for kind in Kind}
_NOTHING: dict[str, Any] = {}


class UnreadableFrame(ValueError):
    """Bytes that are no frame of this release. The message never contains them."""


@lru_cache(maxsize=8192)
def stream_name(tenant_id: UUID, generation_id: UUID) -> bytes:
    """Name of a generation's stream, and of its channel. The braces keep both in one slot of a cluster."""
    return f"tokens:{{{tenant_id}:{generation_id}}}".encode()


def encode(frame: Frame) -> bytes:
    """Raises TypeError where text or detail is not JSON, such as half a surrogate pair."""
    if frame.detail:
        return orjson.dumps((frame.kind.value, frame.attempt, frame.seq, frame.deltas, frame.detail))
    return orjson.dumps((frame.kind.value, frame.attempt, frame.seq, frame.deltas))


def decode(raw: bytes) -> Frame:
    """Raises UnreadableFrame."""
    try:
        kind, attempt, seq, deltas, *detail = orjson.loads(raw)
        return Frame(_KINDS[kind], attempt, seq, deltas, detail[0] if detail else _NOTHING)
    except (ValueError, TypeError, KeyError) as error:
        raise UnreadableFrame(f"not a frame that this release knows: {type(error).__name__}") from None


def joined(earlier: Frame, later: Frame) -> Frame | None:
    """Both token frames as one, where ``later`` directly follows ``earlier``; else None."""
    if (
        earlier.kind is Kind.TOKEN
        and later.kind is Kind.TOKEN
        and earlier.attempt == later.attempt
        and later.seq - len(later.deltas) == earlier.seq
    ):
        return Frame(Kind.TOKEN, later.attempt, later.seq, (*earlier.deltas, *later.deltas))
    return None


def coalesced(frames: Iterable[Frame]) -> Iterator[Frame]:
    """The same frames, in order, with runs of tokens joined."""
    held: Frame | None = None
    for frame in frames:
        if held is None:
            held = frame
        elif (both := joined(held, frame)) is not None:
            held = both
        else:
            yield held
            held = frame
    if held is not None:
        yield held
