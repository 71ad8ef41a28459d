"""Whether what was streamed is what is stored, of every single answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from benches.answer import COMPLETED, Answer, Broken

_DEADLINE_S = 60.0
_POLL_S = 0.05
_TERMINAL = frozenset({COMPLETED, "failed", "cancelled"})


class Completeness(BaseModel):
    model_config = ConfigDict(frozen=True)

    answers: int = Field(description="all that were asked for, in and outside the window")
    wrong: list[str] = Field(description="a line for each that did not come, or is not what is stored")
    settled_s: float | None = Field(
        description="seconds until all were read back as ended, the reading included; none: nothing is stored"
    )


class Store(Protocol):
    """Where answers are read back from."""

    async def stored(self, url: str) -> dict[str, Any] | None:
        """The generation at ``url``; None where the read models lag, so that it is to be asked for again later.

        Raises Broken.
        """


async def check(
    answers: Sequence[Answer], tokens: int, stores: Sequence[Store], deadline_s: float = _DEADLINE_S
) -> Completeness:
    """Read back every answer. Without ``stores`` only how the answers came is looked at.

    ``tokens``: of each answer. All must have ended ``deadline_s`` from now.
    """
    began = time.monotonic()
    wrong = [f"{_name(answer)}: {_fault(answer)}" for answer in answers if not answer.came_through(tokens)]
    told = iter([answer for answer in answers if answer.url and answer.came_through(tokens)])
    for lines in await asyncio.gather(*(_read_back(store, told, began + deadline_s) for store in stores)):
        wrong += lines
    settled_s = time.monotonic() - began if stores else None
    return Completeness(answers=len(answers), wrong=wrong, settled_s=settled_s)


async def _read_back(store: Store, told: Iterator[Answer], deadline: float) -> list[str]:
    wrong: list[str] = []
    for answer in told:
        try:
            difference = difference_of(answer, await _ended(store, answer.url, deadline))
        except Broken as broken:
            difference = str(broken)
        if difference is not None:
            wrong.append(f"{answer.url}: {difference}")
    return wrong


async def _ended(store: Store, url: str, deadline: float) -> dict[str, Any]:
    """The generation once the read model has its end. Raises Broken."""
    while True:
        generation = await store.stored(url)
        if generation is not None and generation["status"] in _TERMINAL:
            return generation
        if time.monotonic() > deadline:
            found = "lags" if generation is None else f"still says {generation['status']}"
            raise Broken(f"it is overdue, and the read model {found}")
        await asyncio.sleep(_POLL_S)


def difference_of(answer: Answer, generation: dict[str, Any]) -> str | None:
    """How what is stored differs from what was streamed, without any of the text; None where it does not."""
    if generation["status"] != answer.outcome:
        return f"streamed as {answer.outcome}, stored as {generation['status']}"
    streamed, stored = answer.text, generation["content"] or ""
    if streamed != stored:
        same = next(
            (at for at, (one, other) in enumerate(zip(streamed, stored, strict=False)) if one != other),
            min(len(streamed), len(stored)),
        )
        return f"{len(streamed)} characters streamed, {len(stored)} stored, which differ from character {same} on"
    return None


def _name(answer: Answer) -> str:
    return answer.url or "an answer"


def _fault(answer: Answer) -> str:
    seen = answer.seqs[-1] if answer.seqs else 0
    return f"{answer.outcome or 'no end'}, {seen} tokens"
