"""What a client may ask for, and the command it becomes. Decides; does no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from backplane.ports.identifiers import new_id
from backplane.security.principal import Principal
from command_api.content_keys import Sealing
from command_api.estimate import Estimate
from command_api.message_body import Body, MessageBody, NamedToolBody, ResponseFormatBody, Text, ToolBody
from command_api.source_body import MOST, SourceBody
from event_schemas.chat import ChatMessage
from event_schemas.control_plane import TitleContent
from event_schemas.generation import Fallback, Parameters, PromptContent, SubmitPrompt, WindowPolicy
from event_schemas.payload import PersonaRef
from event_schemas.personas import VARIABLE_NAME

_CONVERSATION = "01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d10"
_GENERATION = "01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d11"
TITLE_LENGTH = 60
"""Most characters of a title that a prompt gives."""

DEFAULT_WINDOW: WindowPolicy = "slide"

_REPAIRS = 2
"""Where a prompt with a schema says nothing."""

_MESSAGE = "01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d0f"


class ParametersBody(Body):
    """How the model is to be sampled. What is left out is the backend's own choice."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"temperature": 0.7, "max_tokens": 256}]})

    temperature: float | None = Field(None, ge=0, le=2, description="0 is the likeliest token always", examples=[0.7])
    top_p: float | None = Field(None, gt=0, le=1, description="nucleus sampling: the share of likelihood kept")
    top_k: int | None = Field(None, ge=0, le=1000, description="sample from the k likeliest tokens; 0: from all")
    min_p: float | None = Field(None, ge=0, le=1, description="drop what is less likely than this share of the best")
    presence_penalty: float | None = Field(None, ge=-2, le=2, description="against what was said at all")
    frequency_penalty: float | None = Field(None, ge=-2, le=2, description="against what was said often")
    max_tokens: int | None = Field(None, ge=1, le=1_000_000, description="most tokens of the answer", examples=[256])
    stop: tuple[Annotated[Text, Field(min_length=1, max_length=200)], ...] = Field(
        (), max_length=16, description="the answer ends before any of these", examples=[["\n\n"]]
    )
    seed: int | None = Field(None, ge=0, le=2**32 - 2, description="the same seed samples the same way")
    tool_choice: Literal["auto", "none", "required"] | NamedToolBody | None = Field(
        None, description="whether the model has to ask for a tool, or for which one"
    )
    parallel_tool_calls: bool | None = Field(None, description="the model may ask for several tools at once")
    reasoning_effort: Literal["minimal", "low", "medium", "high"] | None = Field(
        None, description="how much the model thinks before it speaks"
    )
    logprobs: bool = Field(
        False, description="say of each token of the text how likely the model held it: its natural logarithm"
    )
    top_logprobs: int | None = Field(
        None, ge=0, le=20, description="with `logprobs`: say so of so many of the likeliest tokens in its place, too"
    )

    @model_validator(mode="after")
    def _top_logprobs_need_logprobs(self) -> ParametersBody:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("`top_logprobs` needs `logprobs`")
        return self


class PromptBody(Body):
    """A prompt. `messages` and `input` are two ways to say the same; `input` is one message of a user.

    Where it goes: without `conversation_id` a conversation begins. With it, and without `parent_message_id`, the
    conversation goes on after its newest message. With `parent_message_id` it goes on after that one, which makes
    siblings: an edit names the parent of the message it replaces, a regeneration names the user's message and gives
    no messages of its own. `parent_message_id: null` begins the conversation anew, beside its first message.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"input": "Why is the sky blue?"},
                {
                    "conversation_id": _CONVERSATION,
                    "parent_message_id": _GENERATION,
                    "model": "gemma-3-270m",
                    "system": "Answer in one sentence.",
                    "messages": [{"role": "user", "content": "And at dusk?"}],
                    "parameters": {"temperature": 0.7, "max_tokens": 256},
                    "metadata": {"ticket": "4711"},
                },
            ]
        }
    )

    conversation_id: UUID | None = Field(None, description="the conversation to go on with")
    parent_message_id: UUID | None = Field(None, description="the message that this prompt follows")
    persona: str | None = Field(
        None,
        pattern=r"^[a-z0-9][a-z0-9_-]{0,63}(@[1-9][0-9]{0,8})?$",
        description="what to ask as: a persona's name, or one version of it, `name@3`; left out, a conversation stays"
        " with the one and the version that it has; null: with none any more",
        examples=[None],
    )
    variables: dict[Annotated[str, Field(pattern=VARIABLE_NAME)], bool | int | float | Text] = Field(
        default_factory=dict, max_length=100, description="what the persona's templates name", examples=[{}]
    )
    model: Text | None = Field(None, max_length=200, description="which model; none: the default", examples=[None])
    system: Text | None = Field(None, min_length=1, description="instructions, put before `messages`")
    messages: tuple[MessageBody, ...] = Field((), description="oldest first")
    input: Text | None = Field(
        None, min_length=1, description="one message of a user", examples=["Why is the sky blue?"]
    )
    parameters: ParametersBody = Field(
        default_factory=lambda: ParametersBody.model_validate({}), description="how the model is to be sampled"
    )
    tools: tuple[ToolBody, ...] = Field((), max_length=128, description="what the model may ask its client to run")
    response_format: ResponseFormatBody | None = Field(None, description="the answer has to be JSON; none: any text")
    sources: tuple[SourceBody, ...] = Field(
        (),
        max_length=MOST,
        description="what is to be read before it is answered; it is put before the newest question",
        examples=[[{"kind": "site", "site": "news"}]],
    )
    window: WindowPolicy | None = Field(
        None,
        description="where the conversation does not fit the model with room for an answer: `slide` leaves its oldest"
        " turns out, `summarise` puts a summary by the model in their place, `fail` asks with all of it, which the"
        " model may refuse; what this prompt brings is always shown; none: `slide`",
        examples=["summarise"],
    )
    repairs: int | None = Field(
        None,
        ge=0,
        le=5,
        description="how often at most a model is asked again whose answer does not fit its schema; none: 2",
        examples=[None],
    )
    scratchpad: bool = Field(
        False, description="what the model writes between `<scratchpad>` and `</scratchpad>` is cut out of its answer"
    )
    metadata: dict[Annotated[Text, Field(min_length=1, max_length=64)], Text] = Field(
        default_factory=dict, max_length=64, description="yours; returned with the generation, read by nobody"
    )

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> PromptBody:
        if self.input is not None and self.messages:
            raise ValueError("give either `input` or `messages`, not both")
        if self.input is None and not self.messages and self.parent_message_id is None and not self.may_be_of_persona:
            raise ValueError("give `input`, `messages`, or a `parent_message_id` to answer again")
        if self.messages and self.messages[-1].role not in ("user", "tool"):
            raise ValueError("the last of `messages` must be a user's or a tool's")
        if self.parameters.tool_choice not in (None, "none") and not self.tools and not self.may_be_of_persona:
            raise ValueError("`tool_choice` needs `tools`")
        return self

    def as_given(self) -> bytes:
        """The same bytes for the same request, whatever its JSON looked like."""
        # What older releases did not know is in it where it was given, so that their requests stay the same.
        unsaid = {"persona", "variables", "sources", "window", "repairs", "scratchpad"} - self.model_fields_set
        return f"{self.begins_anew}:{self.model_dump_json(exclude=unsaid)}".encode()

    @property
    def may_be_of_persona(self) -> bool:
        """What it lacks, a persona may have."""
        return self.persona is not None or bool(self.variables)

    @property
    def begins_a_conversation(self) -> bool:
        """It names neither a conversation nor a message."""
        return self.conversation_id is None and self.parent_message_id is None

    @property
    def begins_anew(self) -> bool:
        """`parent_message_id` was given as null, not left out."""
        return self.parent_message_id is None and "parent_message_id" in self.model_fields_set

    def written(self) -> tuple[ChatMessage, ...]:
        """All messages that this prompt adds, oldest first."""
        system = () if self.system is None else (ChatMessage(role="system", content=self.system),)
        if self.input is not None:
            return (*system, ChatMessage(role="user", content=self.input))
        return (*system, *(one.message() for one in self.messages))


class OfBatch(NamedTuple):
    """Which line of which batch a prompt is."""

    batch_id: UUID
    line: int
    custom_id: str

    @property
    def idempotency_key(self) -> str:
        """None of a client's: a header holds no newline."""
        return f"batch\n{self.batch_id}\n{self.line}"


class Accepted(BaseModel):
    """The prompt is durable. It will end in exactly one of completed, failed, cancelled."""

    generation_id: UUID = Field(description="the generation of the answer", examples=[_GENERATION])
    conversation_id: UUID = Field(description="the conversation it belongs to", examples=[_CONVERSATION])
    message_id: UUID = Field(
        description="the message that the answer becomes; a next prompt may name it as its parent",
        examples=[_GENERATION],
    )
    parent_message_id: UUID | None = Field(description="the message that this prompt follows", examples=[None])
    input_message_ids: list[UUID] = Field(
        description="ids of the messages that this prompt adds, oldest first", examples=[[_MESSAGE]]
    )
    model: str = Field(description="the model that will answer", examples=["gemma-3-270m"])
    status: str = Field(description="always `queued`", examples=["queued"])
    stream_url: str = Field(
        description="the answer as server-sent events, from any cursor",
        examples=[f"/v1/generations/{_GENERATION}/stream"],
    )
    generation_url: str = Field(
        description="the generation, also in the `Location` header", examples=[f"/v1/generations/{_GENERATION}"]
    )
    cancel_url: str = Field(description="POST here to stop it", examples=[f"/v1/generations/{_GENERATION}/cancel"])

    @classmethod
    def of(cls, command: SubmitPrompt) -> Accepted:
        url = f"/v1/generations/{command.generation_id}"
        return cls(
            generation_id=command.generation_id,
            conversation_id=command.conversation_id,
            message_id=command.generation_id,
            parent_message_id=command.parent_message_id,
            input_message_ids=list(command.input_message_ids),
            model=command.model,
            status="queued",
            stream_url=f"{url}/stream",
            generation_url=url,
            cancel_url=f"{url}/cancel",
        )


def content_of(body: PromptBody, of_batch: OfBatch | None = None) -> PromptContent:
    """What ``body`` says, as the model is to read it."""
    return PromptContent(
        messages=body.written(),
        metadata=dict(body.metadata),
        tools=tuple(one.tool() for one in body.tools),
        response_format=None if body.response_format is None else body.response_format.response_format(),
        stop=body.parameters.stop,
        custom_id=None if of_batch is None else of_batch.custom_id,
    )


def command_of(
    body: PromptBody,
    principal: Principal,
    *,
    content: PromptContent,
    sealing: Sealing,
    estimate: Estimate,
    generation_id: UUID,
    conversation_id: UUID,
    parent_message_id: UUID | None,
    wants_title: bool,
    model: str,
    pool: str,
    fallbacks: tuple[Fallback, ...] = (),
    persona: PersonaRef | None = None,
    of_batch: OfBatch | None = None,
) -> SubmitPrompt:
    """The command that ``body`` becomes at its place in a conversation."""
    written = content.messages
    values: dict[str, Any] = body.parameters.model_dump(exclude={"stop"})
    title = title_of(written) if wants_title else None
    shaped = content.response_format is not None and content.response_format.json_schema is not None
    repairs = _REPAIRS if body.repairs is None else body.repairs
    return SubmitPrompt(
        generation_id=generation_id,
        conversation_id=conversation_id,
        parent_message_id=parent_message_id,
        input_message_ids=tuple(new_id() for _ in written),
        roles=tuple(message.role for message in written),
        input_tokens=estimate.input_tokens,
        user_id=principal.user_id,
        key_id=principal.key_id,
        share=principal.share,
        model=model,
        pool=pool,
        fallbacks=fallbacks,
        parameters=Parameters(**values),
        content=sealing.key.seal(content),
        title=None if title is None else sealing.key.seal(title),
        keeps_content=sealing.keeps_content,
        reserved=estimate.reserved,
        persona=persona,
        window=body.window or DEFAULT_WINDOW,
        batch_id=None if of_batch is None else of_batch.batch_id,
        batch_line=None if of_batch is None else of_batch.line,
        scratchpad=body.scratchpad,
        repairs=repairs if shaped else 0,
    )


def title_of(messages: Sequence[ChatMessage]) -> TitleContent | None:
    """What a conversation that begins with these is called; None where no user said anything."""
    said = next((message.text for message in messages if message.role == "user"), "")
    title = " ".join(said.split())[:TITLE_LENGTH].rstrip()
    return TitleContent(title=title) if title else None
