"""What a worker needs of an engine: the pieces of an answer, then how it ended.

BackendError              ``reason`` is stable and goes into the record, the message is for people
├── RequestRefused        this request can never succeed; the generation fails
└── BackendUnavailable    the engine is gone or broke off; another attempt may succeed
    └── NotServed         the provider never began an answer, and counts nothing; it may be asked again
        ├── KeyRefused    the key is no good; another one may be
        └── RateLimited   the key has no room now
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable
from uuid import UUID

from event_schemas.chat import ChatMessage, ResponseFormat, Tool
from event_schemas.generation import FinishReason, Parameters
from event_schemas.logprobs import TokenLogprob


class BackendError(Exception):
    """The message carries no secret and no prompt text."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class RequestRefused(BackendError):
    """For example ``context_length_exceeded``."""


class BackendUnavailable(BackendError):
    """For example ``engine_lost``."""


class NotServed(BackendUnavailable):
    """For example ``provider_failed``. Where a request may have been worked on before it broke off, this is not raised:
    what it used would be counted nowhere."""


class KeyRefused(NotServed):
    """The provider does not take this key, or its account has nothing left."""


class RateLimited(NotServed):
    """``retry_after_s`` is what the provider said, None where it said nothing."""

    def __init__(self, message: str, retry_after_s: float | None, limits: Limits | None = None) -> None:
        super().__init__("rate_limited", message)
        self.retry_after_s = retry_after_s
        self.limits = limits


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """One attempt at one generation. ``messages`` is the whole conversation, oldest first.

    ``model`` is the engine's own name for it. ``key`` is the provider's key to ask with, None for an engine of ours.
    ``state_name`` and ``state_file`` are for a backend that keeps states: what this one's is to be known by, None where
    it is not to be kept, and the file that the engine is to go on from.
    """

    generation_id: UUID
    attempt: int
    model: str
    messages: tuple[ChatMessage, ...]
    parameters: Parameters
    metadata: Mapping[str, str] = field(default_factory=dict)
    tools: tuple[Tool, ...] = ()
    response_format: ResponseFormat | None = None
    stop: tuple[str, ...] = ()
    key: str | None = field(default=None, repr=False)
    state_name: str | None = None
    state_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What a provider said of a key beside its answer. None: it did not say. Seconds count from the answer."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    requests_left: int | None = None
    tokens_left: int | None = None
    requests_reset_s: float | None = None
    tokens_reset_s: float | None = None


class Delta(NamedTuple):
    """A piece of the answer's text as the engine gave it. Empty only where its tokens' logprobs come without text."""

    text: str
    logprobs: Sequence[TokenLogprob] = ()


class Reasoning(NamedTuple):
    """A piece of what the model thinks before it speaks. Never empty."""

    text: str


class ToolCallDelta(NamedTuple):
    """A piece of a tool call. ``number`` is the engine's own of the call; ``id`` and ``name`` come first."""

    number: int
    arguments: str
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """Always the last item of a generation that was not broken off.

    Counts are the engine's own; None where it did not count, or where what it said cannot be true.
    """

    finish_reason: FinishReason
    input_tokens: int | None
    output_tokens: int | None
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    stop: str | None = None
    """Which of the request's stop sequences ended it; None where none did, or the engine does not say."""

    def after(self, *earlier: Finished) -> Finished:
        """This one, with what ``earlier`` requests of the same attempt used."""
        counted = [one for one in (self, *earlier) if one.input_tokens is not None and one.output_tokens is not None]
        known = len(counted) == len(earlier) + 1
        return replace(
            self,
            input_tokens=sum(one.input_tokens or 0 for one in counted) if known else None,
            output_tokens=sum(one.output_tokens or 0 for one in counted) if known else None,
            cached_input_tokens=sum(one.cached_input_tokens for one in counted),
            reasoning_tokens=sum(one.reasoning_tokens for one in counted),
        )


@dataclass(frozen=True, slots=True)
class Counted:
    """Tokens that a model is given to read, and how many its window has, the answer's included."""

    tokens: int
    window: int


Item: TypeAlias = Limits | Delta | Reasoning | ToolCallDelta | Finished
"""What an engine gives: Limits at most once and first, then the answer's pieces, then Finished."""


Progress = Callable[[str, float], None]
"""Called with what is being done and the share that is done, 0 to 1; from any thread."""


class Backend(Protocol):
    async def start(self, progress: Progress) -> None:
        """Load what there is to load. Raises BackendUnavailable with what is wrong and what to do."""

    def generate(self, request: InferenceRequest) -> AsyncGenerator[Item, None]:
        """Stream one answer.

        Closing the iterator (``aclose``) or cancelling its consumer stops the engine's work on it within 250 ms, and
        its slot is free again. Raises RequestRefused, BackendUnavailable.
        """

    async def count(self, request: InferenceRequest) -> Counted | None:
        """What ``generate`` would give the model to read; None where only who runs it can count.

        Raises RequestRefused, BackendUnavailable.
        """

    async def close(self) -> None:
        """Release the engine. Running generations end with BackendUnavailable."""


@runtime_checkable
class KeepsStates(Protocol):
    """A backend that can put into a file what its model has read, and go on from there (``InferenceRequest``).

    What a file holds is as good as the text that was read.
    """

    def keep_states(self, folder: Path) -> None:
        """Before it is started: where the files stand. Nobody else may enter that folder."""

    @property
    def state_facts(self) -> str:
        """What has to be the same where a file is to be used: engine, model, window, and how they are run.

        Once it is started.
        """

    async def save_state(self, name: str) -> Path | None:
        """A new file with what is known by ``name``, which the engine then lets go of; None: it has no such thing.

        Waits for the answer that reads there to end. Raises BackendError.
        """
