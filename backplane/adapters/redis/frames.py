"""How frames stand in Redis: JSON arrays ``[kind, attempt, seq, deltas, detail]``, the last left out where empty."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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


def follows(earlier: Frame, later: Frame) -> bool:
    """Whether both are tokens and ``later`` begins right where ``earlier`` ends."""
    return (
        later.kind is Kind.TOKEN
        and earlier.kind is Kind.TOKEN
        and earlier.attempt == later.attempt
        and later.seq - len(later.deltas) == earlier.seq
    )


def joined(run: Sequence[Frame]) -> Frame:
    """A run of frames, each of which follows the one before, as one."""
    if len(run) == 1:
        return run[0]
    last = run[-1]
    return Frame(Kind.TOKEN, last.attempt, last.seq, [delta for frame in run for delta in frame.deltas])


def coalesced(frames: Iterable[Frame]) -> Iterator[Frame]:
    """The same frames, in order, with runs of tokens joined."""
    run: list[Frame] = []
    for frame in frames:
        if run and not follows(run[-1], frame):
            yield joined(run)
            run.clear()
        run.append(frame)
    if run:
        yield joined(run)
