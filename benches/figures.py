"""What came out, in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from pydantic import BaseModel, ConfigDict, Field

from benches.answer import Answer
from benches.load import Load


class Spread(BaseModel):
    """Milliseconds. Nearest rank: each figure is one that was measured."""

    model_config = ConfigDict(frozen=True)

    count: int = Field(description="how many were measured")
    p50: float
    p99: float
    most: float


class Figures(BaseModel):
    """Of one load on one backend. Only what falls into the window counts."""

    model_config = ConfigDict(frozen=True)

    first_token: Spread | None = Field(description="from before the prompt is sent to its first token")
    accepted: Spread | None = Field(description="from before the prompt is sent to its 202")
    whole: Spread | None = Field(description="from before the prompt is sent to the event that ends its answer")
    gap: Spread | None = Field(description="from one arrival of tokens to the next of the same answer")
    requests: int = Field(description="answers that ended in the window")
    tokens: int = Field(description="tokens that arrived in the window")
    frames: int = Field(description="arrivals of tokens in the window; one may bring several")
    unavailable: dict[str, int] = Field(description="streams that were answered 503 at first, by what was missing")
    seconds: float = Field(description="length of the window")

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds

    @property
    def requests_per_s(self) -> float:
        return self.requests / self.seconds


def spread(seconds: Iterable[float]) -> Spread | None:
    """None where nothing was measured."""
    ordered = sorted(seconds)
    if not ordered:
        return None
    return Spread(
        count=len(ordered),
        p50=_rank(ordered, 0.50) * 1000,
        p99=_rank(ordered, 0.99) * 1000,
        most=ordered[-1] * 1000,
    )


def figures(load: Load, answers: Sequence[Answer], opened: float) -> Figures:
    """``opened``: when the window began, in the answers' own time."""
    closed = opened + load.seconds
    counted = [answer for answer in answers if opened <= answer.asked < closed]
    tokens = frames = 0
    gaps: list[float] = []
    for answer in answers:
        seen = 0
        for time, seq in zip(answer.times, answer.seqs, strict=True):
            if opened <= time < closed:
                tokens += seq - seen
                frames += 1
            seen = seq
        gaps += [later - earlier for earlier, later in pairwise(answer.times) if opened <= later < closed]
    return Figures(
        first_token=spread(answer.times[0] - answer.asked for answer in counted if answer.times),
        accepted=spread(answer.accepted - answer.asked for answer in counted if answer.accepted is not None),
        whole=spread(answer.ended - answer.asked for answer in counted if answer.ended is not None),
        gap=spread(gaps),
        requests=sum(1 for answer in answers if answer.ended is not None and opened <= answer.ended < closed),
        tokens=tokens,
        frames=frames,
        unavailable=dict(Counter(what for answer in counted for what in answer.unavailable)),
        seconds=load.seconds,
    )


def _rank(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of all do not exceed."""
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]
