"""The life of a generation: the commands that begin and cancel it, the events that tell what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from event_schemas.chat import (
    BarePiece,
    ChatMessage,
    Logprobs,
    NamedTool,
    Piece,
    ResponseFormat,
    Role,
    Tool,
    bare,
    logprobs_of,
    with_logprobs,
)
from event_schemas.limits import Reserved
from event_schemas.payload import AboutGeneration, Content, PaidBy, Payload, PersonaRef, Served, Usage, Written
from event_schemas.share import Share
from event_schemas.sources import SourceWish

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]

Purpose = Literal["answer", "title", "summary"]
"""What a generation is for: an answer, or something about its conversation that nobody sees as a message of it."""

WindowPolicy = Literal["fail", "slide", "summarise"]
"""Where a conversation does not fit the model: fail, leave its oldest turns out, or show a summary in their place."""


class Parameters(BaseModel):
    """How the model is to be sampled. None leaves a value to the backend."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = Field(default=None, description="may ask for several tools at once")
    reasoning_effort: Literal["minimal", "low", "medium", "high"] | None = None
    logprobs: bool = Field(default=False, description="say how likely the model held each token")
    top_logprobs: int | None = Field(default=None, description="and so many of the likeliest in its place")


class PromptContent(Content):
    messages: tuple[ChatMessage, ...]
    metadata: dict[str, str] = Field(default_factory=dict, description="the client's own; returned, never read")
    tools: tuple[Tool, ...] = ()
    response_format: ResponseFormat | None = None
    stop: tuple[str, ...] = Field(default=(), description="the answer ends before any of these")
    sources: tuple[SourceWish, ...] = Field(default=(), description="what is to be read before it is answered")
    custom_id: str | None = Field(default=None, description="of a batch's line: what its client calls it")


class Fallback(BaseModel):
    """Where a prompt goes that the pool before cannot serve."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    pool: str
    model: str = Field(description="as prompts name it")


class FellBack(BaseModel):
    """A pool that could not serve a prompt."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    pool: str
    model: str = Field(description="as prompts name it")
    attempt: int = Field(ge=1, description="the last one that was made there")
    reason: str = Field(description="stable, such as `provider_failed` or `no_usable_key`")


class SubmitPrompt(AboutGeneration):
    """Command: answer this prompt. It is also the fact that the prompt was submitted.

    ``input_message_ids`` and ``roles`` have one entry for each message of its content, in order. The answer becomes
    message ``generation_id``: a generation and the message it writes are one thing, so they share an id.

    Where a pool cannot serve it, the same prompt is handed to the next of ``fallbacks`` by a command of its own, whose
    ``fell_back`` is no longer empty; ``pool`` and ``model`` are always those to be asked now.
    """

    wire_name: ClassVar[str] = "prompt.submit.v3"

    conversation_id: UUID
    parent_message_id: UUID | None = Field(description="the message this prompt answers; None begins a conversation")
    input_message_ids: tuple[UUID, ...]
    roles: tuple[Role, ...] = Field(description="who speaks in each of them")
    input_tokens: int = Field(ge=0, description="an estimate of what it adds to the conversation")
    user_id: UUID | None
    key_id: UUID
    model: str
    pool: str
    fallbacks: tuple[Fallback, ...] = Field(default=(), description="what may serve it otherwise, the best first")
    fell_back: tuple[FellBack, ...] = Field(default=(), description="what could not serve it, the first first")
    parameters: Parameters
    content: Written = Field(description="a PromptContent")
    title: Written | None = Field(default=None, description="a TitleContent, of the conversation that it begins")
    keeps_content: bool = Field(
        default=True, description="false: it has a data key of its own, which dies when it has ended"
    )
    share: Share = Field(default_factory=Share, description="its tenant's, when it was accepted")
    reserved: Reserved | None = Field(default=None, description="of its limits, until it ends")
    persona: PersonaRef | None = Field(default=None, description="what it is asked as; its content is rendered already")
    purpose: Purpose = "answer"
    window: WindowPolicy = Field(default="fail", description="what to do where its conversation does not fit the model")
    batch_id: UUID | None = Field(default=None, description="the batch whose line it is; it gives way to all others")
    batch_line: int | None = Field(default=None, ge=1, description="which line of that batch")
    scratchpad: bool = Field(default=False, description="what stands in `<scratchpad>` is cut out of the answer")
    repairs: int = Field(
        default=0, ge=0, description="most attempts more, in all pools, of an answer that does not fit its schema"
    )

    @property
    def asked_model(self) -> str:
        """The model that its client asked for."""
        return self.fell_back[0].model if self.fell_back else self.model

    @property
    def earlier_attempts(self) -> int:
        """Attempts that were made in other pools."""
        return self.fell_back[-1].attempt if self.fell_back else 0

    def handed_on(self, attempt: int, reason: str, repairs: int = 0) -> SubmitPrompt | None:
        """The command for the next pool, after ``attempt`` failed here for ``reason``; None where there is none.

        ``repairs`` of its attempts were made here since an answer did not fit.
        """
        if not self.fallbacks:
            return None
        here = FellBack(pool=self.pool, model=self.model, attempt=attempt, reason=reason)
        onto, *others = self.fallbacks
        return self.model_copy(
            update={
                "pool": onto.pool,
                "model": onto.model,
                "fallbacks": tuple(others),
                "fell_back": (*self.fell_back, here),
                "repairs": max(0, self.repairs - repairs),
            }
        )


class CancelGeneration(AboutGeneration):
    """Command: stop this generation. Travels on ``control`` so that it never waits behind a backlog.

    It repeats the prompt's facts, so that a generation nobody runs yet can be ended without its prompt at hand.
    """

    wire_name: ClassVar[str] = "generation.cancel.v1"

    conversation_id: UUID
    user_id: UUID | None
    key_id: UUID
    model: str
    pool: str
    persona: PersonaRef | None = None
    purpose: Purpose = "answer"


class PromptRejected(Payload):
    """Prompts of an authenticated caller that were refused, summed by key, reason and minute."""

    wire_name: ClassVar[str] = "prompt.rejected.v1"

    key_id: UUID
    reason: str = Field(description="the last segment of the problem's `type`")
    minute: AwareDatetime = Field(description="the minute's beginning, UTC")
    count: int = Field(ge=1)

    def subject(self) -> str:
        return f"key:{self.key_id}"


class GenerationStarted(AboutGeneration):
    """The first attempt began."""

    wire_name: ClassVar[str] = "generation.started.v1"

    conversation_id: UUID
    attempt: int = Field(ge=1)
    model: str
    worker: str
    purpose: Purpose = "answer"


class GenerationRestarted(AboutGeneration):
    """A later attempt began; whatever followers saw of the earlier ones is void."""

    wire_name: ClassVar[str] = "generation.restarted.v1"

    conversation_id: UUID
    attempt: int = Field(ge=2)
    model: str
    worker: str
    purpose: Purpose = "answer"


class AttemptLost(AboutGeneration):
    """An attempt that is void. Of one whose worker was lost, what it used can only be estimated."""

    wire_name: ClassVar[str] = "attempt.lost.v2"

    attempt: int = Field(ge=1)
    user_id: UUID | None
    key_id: UUID
    model: str
    usage: Usage
    served: Served | None = None
    paid_by: PaidBy | None = Field(default=None, description="none: nobody knows")
    persona: PersonaRef | None = Field(default=None, description="what its prompt was asked as")
    reason: Literal["answer_does_not_fit"] | None = Field(
        default=None, description="what it answered did not fit its schema, and was asked for again; none: it was lost"
    )


class TokensContent(Content):
    deltas: tuple[BarePiece, ...]
    logprobs: Logprobs = ()

    @classmethod
    def of(cls, said: Sequence[Piece]) -> TokensContent:
        logprobs = logprobs_of(said)
        return cls(deltas=tuple([bare(piece) for piece in said]) if logprobs else tuple(said), logprobs=logprobs)

    @property
    def pieces(self) -> list[Piece]:
        """The deltas with their logprobs."""
        return with_logprobs(self.deltas, self.logprobs)


class TokensEmitted(AboutGeneration):
    """Deltas ``first_seq … first_seq + count - 1`` of one attempt, coalesced about four times a second."""

    wire_name: ClassVar[str] = "tokens.emitted.v3"

    attempt: int = Field(ge=1)
    first_seq: int = Field(ge=1, description="seq counts the backend's deltas from 1 in each attempt")
    count: int = Field(ge=1, description="how many deltas it has")
    content: Written = Field(description="a TokensContent")


class _Ended(AboutGeneration):
    conversation_id: UUID
    attempt: int = Field(ge=0, description="0: it ended before any attempt began")
    user_id: UUID | None
    key_id: UUID
    model: str = Field(description="as the prompt names it")
    usage: Usage
    served: Served | None = Field(default=None, description="none: no attempt ran")
    paid_by: PaidBy | None = Field(default=None, description="none: nobody knows, or no attempt ran")
    persona: PersonaRef | None = Field(default=None, description="what its prompt was asked as")
    deltas: int = Field(ge=0, description="how many deltas the answer came in")
    content: Written | None = Field(description="an AnswerContent; none: nothing was written")
    purpose: Purpose = "answer"
    left_out: int = Field(
        default=0, ge=0, description="messages of the conversation that the model was not shown, for want of room"
    )


class GenerationCompleted(_Ended):
    wire_name: ClassVar[str] = "generation.completed.v3"

    finish_reason: FinishReason
    json_span: tuple[int, int] | None = Field(
        default=None, description="of its text, from and to: the JSON that fits its schema; none: none was asked for"
    )
    stopped_by: int | None = Field(
        default=None, description="which of its stop sequences ended it, from 0; none: nobody knows, or none did"
    )
    first_token_ms: int = Field(ge=0, description="from the attempt's start to its first delta")
    duration_ms: int = Field(ge=0, description="from the attempt's start to its end")


class GenerationFailed(_Ended):
    wire_name: ClassVar[str] = "generation.failed.v3"

    reason: str = Field(description="stable, such as `context_length_exceeded` or `attempts_exhausted`")
    detail: str = Field(description="for people; carries no secret and no prompt text")


class GenerationCancelled(_Ended):
    wire_name: ClassVar[str] = "generation.cancelled.v3"


Terminal = GenerationCompleted | GenerationFailed | GenerationCancelled
"""The three ways in which a generation ends. Each ends in exactly one of them."""
