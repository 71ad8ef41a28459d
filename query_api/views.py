"""Responses, as they stand in the API pages."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from backplane.ports.database import Row
from event_schemas.chat import Misfit, Part, Role
from event_schemas.conversations import ConversationState
from event_schemas.generation import FinishReason, Purpose
from event_schemas.logprobs import TokenLogprob
from event_schemas.sources import Source
from query_api.record import money, served

Status = Literal["queued", "running", "completed", "failed", "cancelled"]

_GENERATION = "01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d11"
_CONVERSATION = "01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d10"
_MESSAGE = "01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d0f"
_USER = "01990f6e-0000-7000-8000-000000000001"
_TIME = "2026-03-01T12:00:00.123456Z"
_SOURCES = "what was put before its question, once it has ended; null: nothing"
_SOURCE_NOTES = "for people: which sources could not be had, and why; null: none"
_ERASED = "what was written is gone: it was erased, or is kept by nobody, as the tenant wants it"


RawJson = Annotated[str | None, WithJsonSchema({})]
"""JSON as its text; the API gives it as what it is."""


class _View(BaseModel):
    model_config = ConfigDict(extra="ignore")


class UsageView(_View):
    input_tokens: int = Field(description="tokens of the prompt and its history", examples=[24])
    output_tokens: int = Field(description="tokens of the answer", examples=[128])
    source: Literal["provider", "estimated"] = Field(
        description="`provider`: the backend counted; `estimated`: it did not come to count", examples=["provider"]
    )
    cached_input_tokens: int = Field(description="of the input: what the provider had in its cache", examples=[0])
    reasoning_tokens: int = Field(description="of the output: what was thought and not said", examples=[0])
    cost_usd: str | None = Field(
        description="US dollars, exact, by the operator's price table; null: the price is not known",
        examples=["0.0000804"],
    )


class ServedView(_View):
    """What really answered."""

    pool: str = Field(description="the pool of workers", examples=["openai"])
    model: str = Field(description="the model as its backend calls it", examples=["gpt-4o-mini-2024-07-18"])


class ToolCallView(_View):
    """The model asks its client to run a tool; answer with a message of the role `tool`."""

    id: str = Field(description="what the answer names as `tool_call_id`", examples=["call_abc123"])
    name: str = Field(description="the tool", examples=["get_weather"])
    arguments: str = Field(description="JSON as the model wrote it", examples=['{"city": "Bonn"}'])


class QueueView(_View):
    """Where a queued prompt stands. Both are estimates."""

    ahead: int = Field(
        description="prompts of the same pool, of all tenants, that are likely to start before it: earlier ones of its"
        " tenant, and of each other tenant as many as have their turns meanwhile",
        examples=[3],
    )
    estimated_wait_s: float | None = Field(
        description="seconds until it may start, at the pool's pace of the last minute; null: nobody knows",
        examples=[12.5],
    )


class GenerationView(_View):
    """One prompt and the answer it gets."""

    id: UUID = Field(description="the generation, and the message it writes", examples=[_GENERATION])
    conversation_id: UUID = Field(description="the conversation it belongs to", examples=[_CONVERSATION])
    message_id: UUID = Field(description="the answer's message; the same as `id`", examples=[_GENERATION])
    status: Status = Field(description="how far it has come; the last three are final", examples=["completed"])
    attempt: int = Field(description="which attempt runs or ran last; 0 before the first", examples=[1])
    queue: QueueView | None = Field(description="of a queued one: where it stands; null: it is not queued")
    model: str = Field(description="the model that was asked", examples=["gemma-3-270m"])
    served: ServedView | None = Field(description="what really answered, once it has ended; null: nothing did")
    persona: str | None = Field(description="what it was asked as; null: no persona", examples=["translator"])
    persona_version: int | None = Field(description="which version of it; null: no persona", examples=[2])
    content: str | None = Field(
        description="the answer, once it has ended, as far as it came; follow the stream for it before that; null after"
        " that: it was erased, or is unreadable, which the operator's log explains",
        examples=["Hello there."],
    )
    erased: bool = Field(description=_ERASED, examples=[False])
    tool_calls: list[ToolCallView] | None = Field(description="what tools it asks for; null: none")
    parsed: RawJson = Field(
        description="of a completed one whose prompt has a JSON schema: the value that `content` is, which fits it, as"
        " the model wrote it; null: none was asked for",
        examples=[{"city": "Bonn"}],
    )
    misfit: Misfit | None = Field(
        description="of a failed one: why its answer does not fit its JSON schema; null: that is not why"
    )
    reasoning: str | None = Field(description="what the model thought, where it says so", examples=[None])
    sources: list[Source] | None = Field(description=_SOURCES)
    source_notes: list[str] | None = Field(description=_SOURCE_NOTES, examples=[None])
    logprobs: list[TokenLogprob] | None = Field(
        description="how likely the model held each token of `content`, where that was asked for; null: it was not"
    )
    finish_reason: FinishReason | None = Field(
        description="of a completed one: it came to its end, to the limit of tokens, asks for tools, or was filtered by"
        " the provider",
        examples=["stop"],
    )
    reason: str | None = Field(description="of a failed one: stable, for programs", examples=["attempts_exhausted"])
    detail: str | None = Field(description="of a failed one: for people", examples=["The worker was lost three times."])
    purpose: Purpose = Field(
        description="what it is for: an answer; or a title or a summary, which are no messages of the conversation",
        examples=["answer"],
    )
    left_out: int = Field(
        description="messages of the conversation that the model was not shown, since there was no room; see `window`",
        examples=[0],
    )
    usage: UsageView | None = Field(description="what the last attempt used, once it has ended")
    parameters: dict[str, Any] | None = Field(
        description="how the model was sampled, as submitted", examples=[{"temperature": 0.7, "max_tokens": 256}]
    )
    metadata: dict[str, str] | None = Field(
        description="yours, as submitted; null where it was erased", examples=[{"ticket": "4711"}]
    )
    first_token_ms: int | None = Field(
        description="milliseconds from the attempt's start to its first token", examples=[42]
    )
    duration_ms: int | None = Field(description="milliseconds from the attempt's start to its end", examples=[1840])
    created_at: datetime | None = Field(description="when it was submitted", examples=[_TIME])
    started_at: datetime | None = Field(description="when its first attempt began", examples=[_TIME])
    ended_at: datetime | None = Field(description="when it ended", examples=[_TIME])
    stream_url: str = Field(description="its Server-Sent Events", examples=[f"/v1/generations/{_GENERATION}/stream"])

    @classmethod
    def of(cls, row: Row) -> GenerationView:
        used = row["input_tokens"] is not None and row["usage_source"] is not None
        usage = {
            "input_tokens": row["input_tokens"],
            "output_tokens": row["output_tokens"],
            "source": row["usage_source"],
            "cached_input_tokens": row["cached_input_tokens"],
            "reasoning_tokens": row["reasoning_tokens"],
            "cost_usd": money(row["cost_usd"]),
        }
        return cls.model_validate(
            {
                **row,
                "message_id": row["id"],
                "usage": usage if used else None,
                "served": served(row),
                "queue": row["queue"] and asdict(row["queue"]),
                "logprobs": row["logprobs"] and [token for tokens in row["logprobs"] for token in tokens],
                "stream_url": f"/v1/generations/{row['id']}/stream",
            }
        )


class ConversationView(_View):
    id: UUID = Field(description="the conversation", examples=[_CONVERSATION])
    title: str | None = Field(description="its name, made of the first prompt or given", examples=["Greetings"])
    erased: bool = Field(description=_ERASED, examples=[False])
    user_id: UUID | None = Field(description="whose it is; null for a key without a user", examples=[_USER])
    persona: str | None = Field(
        description="the persona that its newest prompt was asked as; null: none", examples=["translator"]
    )
    persona_version: int | None = Field(description="the version that it stays on; null: none", examples=[2])
    last_message_id: UUID | None = Field(
        description="where a prompt goes on that names no parent", examples=[_GENERATION]
    )
    created_at: datetime | None = Field(description="when it began", examples=[_TIME])
    updated_at: datetime = Field(description="when it last changed; lists are in this order", examples=[_TIME])
    state: ConversationState = Field(description="only an active one takes prompts", examples=["active"])
    forked_from: UUID | None = Field(
        description="the conversation that it was forked from; null: from none", examples=[None]
    )


class ConversationPage(_View):
    conversations: list[ConversationView] = Field(description="newest first")
    next_cursor: str | None = Field(
        description="`cursor` of the next page; null where this is the last", examples=["MTc3MjM2NjQwMDEyMzQ1Ni4wMTk5"]
    )


class MessageView(_View):
    """A node of the conversation's tree."""

    id: UUID = Field(description="the message", examples=[_GENERATION])
    parent_message_id: UUID | None = Field(
        description="what it answers or goes on from; siblings are edits and regenerations", examples=[_MESSAGE]
    )
    role: Role = Field(description="who speaks", examples=["assistant"])
    content: str | list[Part] | None = Field(
        description="the text, or its parts as they were submitted; null while an answer is being written, where it was"
        " erased, and where it is unreadable, which the operator's log explains",
        examples=["Hello there."],
    )
    erased: bool = Field(description=_ERASED, examples=[False])
    tool_calls: list[ToolCallView] | None = Field(description="of an assistant's: what tools it asks for; null: none")
    tool_call_id: str | None = Field(description="of a tool's: the call that it answers", examples=[None])
    parsed: RawJson = Field(
        description="of an answer whose prompt has a JSON schema: its value; null: none was asked for",
        examples=[{"city": "Bonn"}],
    )
    reasoning: str | None = Field(description="of an answer: what the model thought", examples=[None])
    sources: list[Source] | None = Field(description=f"of an answer: {_SOURCES}")
    source_notes: list[str] | None = Field(description=f"of an answer: {_SOURCE_NOTES}", examples=[None])
    status: Literal["complete"] | Status = Field(
        description="`complete` for what was written by people; an answer's is its generation's", examples=["completed"]
    )
    model: str | None = Field(description="of an answer: the model that was asked", examples=["gemma-3-270m"])
    served_model: str | None = Field(
        description="of an answer: the model that really wrote it, as its backend calls it", examples=["gemma-3-270m"]
    )
    generation_id: UUID = Field(description="the generation it came with", examples=[_GENERATION])
    created_at: datetime | None = Field(description="when it was submitted", examples=[_TIME])

    @classmethod
    def of(cls, row: Row) -> MessageView:
        return cls.model_validate(row)


class ConversationWithMessages(ConversationView):
    messages: list[MessageView] = Field(description="all nodes of the tree, oldest first")
    summary: str | None = Field(
        description="the newest one that its model made, of a long one or when it ended; null: none was made",
        examples=["Ada asked why the sky is blue, and heard of scattered light."],
    )

    @classmethod
    def of(cls, row: Row) -> ConversationWithMessages:
        return cls.model_validate({**row, "messages": [MessageView.of(message) for message in row["messages"]]})


class UsageGroup(_View):
    group: str | None = Field(
        description="the model, the user's id (null: none), the key's id, the day in UTC, the persona's name (null:"
        " none), or who paid: `platform`, or `tenant` with a provider key of its own (null: nobody knows)",
        examples=["2026-03-01"],
    )
    generations: int = Field(description="generations", examples=[12])
    embeddings: int = Field(description="requests for embeddings", examples=[0])
    attempts: int = Field(
        description="attempts; more than generations where some were lost, and each request for embeddings is one",
        examples=[13],
    )
    estimated_attempts: int = Field(description="attempts whose tokens are an estimate", examples=[1])
    input_tokens: int = Field(description="tokens of prompts and their history", examples=[2400])
    output_tokens: int = Field(description="tokens of answers", examples=[9600])
    cached_input_tokens: int = Field(description="of the input: what providers had in their caches", examples=[0])
    reasoning_tokens: int = Field(description="of the output: what was thought and not said", examples=[0])
    cost_usd: str | None = Field(
        description="US dollars, of the attempts whose price is known; null: of none it is", examples=["0.42"]
    )
    attempts_of_unknown_cost: int = Field(description="attempts whose price is not known", examples=[0])

    @classmethod
    def of(cls, row: Row) -> UsageGroup:
        return cls.model_validate({**row, "cost_usd": money(row["cost_usd"])})


class UsageReport(_View):
    since: datetime = Field(alias="from", description="beginning, inclusive", examples=["2026-03-01T00:00:00Z"])
    until: datetime = Field(alias="to", description="end, exclusive", examples=["2026-04-01T00:00:00Z"])
    group_by: Literal["model", "user", "key", "day", "paid_by", "persona"] = Field(
        description="what the sums are by", examples=["day"]
    )
    groups: list[UsageGroup] = Field(description="one for each that used anything, in order")


class ProviderKeyView(_View):
    id: UUID = Field(description="what retires it", examples=["01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d13"])
    pool: str = Field(description="the pool that it is for", examples=["cloud"])
    name: str = Field(description="a label for people", examples=["our account"])
    fingerprint: str = Field(
        description="a hash of the key, which tells nothing of it; `provider_key.set_aside` names it by this",
        examples=["0a1b2c3d4e5f"],
    )
    added_at: datetime = Field(description="when it was added", examples=[_TIME])


class ProviderKeyList(_View):
    provider_keys: list[ProviderKeyView] = Field(description="all that are in use, oldest first")


class EventLine(_View):
    """A line of the event log."""

    sequence: int = Field(description="its place in the tenant's log, from 1 without holes", examples=[1042])
    hash: str = Field(
        description="hexadecimal SHA-256 of the hash before it and of this line's event",
        examples=["5d41402abc4b2a76b9719d911017c592"],
    )
    event: dict[str, Any] = Field(
        description="the CloudEvents envelope as it came; what is hashed is its form by RFC 8785",
        examples=[
            {
                "specversion": "1.0",
                "id": _GENERATION,
                "type": "generation.started.v1",
                "source": "/parley/worker",
                "subject": f"generation:{_GENERATION}",
            }
        ],
    )


class EventPage(_View):
    events: list[EventLine] = Field(description="in the log's order")
    next_cursor: str | None = Field(description="`cursor` of the next page; null at the end", examples=["1042"])
