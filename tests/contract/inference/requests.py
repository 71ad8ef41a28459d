"""Requests as workers make them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import uuid4

from event_schemas.chat import ChatMessage
from event_schemas.generation import FinishReason, Parameters
from workers.inference.port import Delta, Finished, InferenceRequest, Item

_SUNG = " ".join(["la"] * 40)
SONG = (
    ChatMessage(role="user", content="Sing."),
    ChatMessage(role="assistant", content=_SUNG),
    ChatMessage(role="user", content="Sing."),
    ChatMessage(role="assistant", content=_SUNG),
    ChatMessage(role="user", content="Sing."),
)
"""The packaged model sings on until the window is full, also when a neighbour in the batch shifts its rounding."""


def request(
    *messages: ChatMessage | str,
    parameters: Parameters | None = None,
    attempt: int = 1,
    metadata: dict[str, str] | None = None,
    stop: tuple[str, ...] = (),
) -> InferenceRequest:
    return InferenceRequest(
        generation_id=uuid4(),
        attempt=attempt,
        model="any",
        messages=tuple(ChatMessage(role="user", content=m) if isinstance(m, str) else m for m in messages)
        or (ChatMessage(role="user", content="What is the capital of France?"),),
        parameters=parameters or Parameters(max_tokens=8, temperature=0),
        metadata=metadata or {},
        stop=stop,
    )


@dataclass(frozen=True)
class Counted:
    """How an answer ended whose engine counted its tokens."""

    finish_reason: FinishReason
    input_tokens: int
    output_tokens: int
    stop: str | None = None


async def answer(items: AsyncIterator[Item]) -> tuple[list[str], Counted]:
    """All deltas of a plain answer, and how it ended."""
    deltas: list[str] = []
    finished: Finished | None = None
    async for item in items:
        assert finished is None, "something came after Finished"
        if isinstance(item, Delta):
            deltas.append(item.text)
        elif isinstance(item, Finished):
            finished = item
    assert finished is not None, "it ended without Finished"
    assert finished.input_tokens is not None, "the engine did not count"
    assert finished.output_tokens is not None, "the engine did not count"
    return deltas, Counted(finished.finish_reason, finished.input_tokens, finished.output_tokens, finished.stop)
