"""One answer as it arrived."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import orjson


@dataclass(slots=True, eq=False)
class Answer:
    """Times are seconds of ``time.monotonic``."""

    asked: float
    """Right before the prompt was handed over."""
    accepted: float | None = None
    """When it was taken in; None where nothing says so."""
    times: list[float] = field(default_factory=list)
    """When each token frame was there."""
    seqs: list[int] = field(default_factory=list)
    """How many tokens had come with each of them."""
    data: list[bytes] = field(default_factory=list)
    """Each one's JSON, decoded only once nobody looks at the clock any more."""
    ended: float | None = None
    outcome: str = ""
    """The event that ended it, or what went wrong."""
    unavailable: list[str] = field(default_factory=list)
    """What was, each time when the stream was answered 503 and had to be asked for again."""
    url: str = ""
    """Where the stored answer is; empty where none is stored."""

    @property
    def text(self) -> str:
        return "".join(orjson.loads(one)["text"] for one in self.data)

    def came_through(self, tokens: int) -> bool:
        """It ended well, with that many tokens."""
        return self.outcome == COMPLETED and bool(self.seqs) and self.seqs[-1] == tokens


COMPLETED = "completed"


class Broken(Exception):
    """The answer did not come: what was wrong, without any of its text."""


class Source(Protocol):
    """Gives one answer at a time."""

    async def answer(self, into: Answer) -> None:
        """Ask, and note in ``into`` what comes until it has ended. Raises Broken."""

    async def close(self) -> None: ...
