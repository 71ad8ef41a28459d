"""What a worker needs of an engine: deltas of text, then how it ended.

BackendError              ``reason`` is stable and goes into the record, the message is for people
├── RequestRefused        this request can never succeed; the generation fails
└── BackendUnavailable    the engine is gone or broke off; another attempt may succeed
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol
from uuid import UUID

from event_schemas.generation import ChatMessage, Parameters


class BackendError(Exception):
    """The message carries no secret and no prompt text."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class RequestRefused(BackendError):
    """For example ``context_length_exceeded``."""


class BackendUnavailable(BackendError):
    """For example ``engine_lost``."""


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """One attempt at one generation. ``messages`` is the whole conversation, oldest first."""

    generation_id: UUID
    attempt: int
    model: str
    messages: tuple[ChatMessage, ...]
    parameters: Parameters
    metadata: Mapping[str, str] = field(default_factory=dict)


class Delta(NamedTuple):
    """A piece of the answer as the engine gave it. Never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """Always the last item of a generation that was not broken off. Counts are the engine's own."""

    finish_reason: Literal["stop", "length"]
    input_tokens: int
    output_tokens: int


Progress = Callable[[str, float], None]
"""Called with what is being done and the share that is done, 0 to 1; from any thread."""


class Backend(Protocol):
    async def start(self, progress: Progress) -> None:
        """Load what there is to load. Raises BackendUnavailable with what is wrong and what to do."""

    def generate(self, request: InferenceRequest) -> AsyncGenerator[Delta | Finished, None]:
        """Stream one answer.

        Closing the iterator (``aclose``) or cancelling its consumer stops the engine's work on it within 250 ms, and
        its slot is free again. Raises RequestRefused, BackendUnavailable.
        """

    async def close(self) -> None:
        """Release the engine. Running generations end with BackendUnavailable."""
