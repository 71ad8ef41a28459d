"""Prompts that a small local model answers at length, and how many deltas come in a window."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence

from pydantic import BaseModel, ConfigDict, Field

TOKENS = 96
"""Of an answer, all of which are used: the model sings on."""

_SUNG = " ".join(["la"] * 40)
MESSAGES: Sequence[tuple[str, str]] = (
    ("user", "Sing."),
    ("assistant", _SUNG),
    ("user", "Sing."),
    ("assistant", _SUNG),
    ("user", "Sing."),
)
"""Role and text, oldest first."""


class SingingOrder(BaseModel):
    """What a process that asks the engine is told."""

    model_config = ConfigDict(frozen=True)

    model_file: str
    streams: int = Field(ge=1)
    warm_up_s: float = Field(ge=0)
    seconds: float = Field(gt=0, description="length of the window that counts")


class Sung(BaseModel):
    """Deltas that came within the window."""

    model_config = ConfigDict(frozen=True)

    deltas: int
    seconds: float

    @property
    def a_second(self) -> float:
        return self.deltas / self.seconds


async def sing(streams: int, warm_up_s: float, seconds: float, answer: Callable[[], AsyncIterator[int]]) -> Sung:
    """``streams`` ask at a time, each again as soon as it has its answer. ``answer`` yields how many deltas came."""
    opened = time.monotonic() + warm_up_s
    closed = opened + seconds
    count = 0

    async def ask_on() -> None:
        nonlocal count
        while time.monotonic() < closed:
            async for deltas in answer():
                if opened <= time.monotonic() < closed:
                    count += deltas

    async with asyncio.timeout(warm_up_s + seconds + 120):
        await asyncio.gather(*(ask_on() for _ in range(streams)))
    return Sung(deltas=count, seconds=seconds)
