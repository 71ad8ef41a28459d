"""The shapes of answers about responses, for the API pages. Nothing is validated by them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

_ID = "resp_01990f6e8a547c3e9d5b2f6a7b1c0d11"
_ITEM = "msg_01990f6e8a547c3e9d5b2f6a7b1c0d11_1_0"
_INPUT = "msg_01990f6e8a547c3e9d5b2f6a7b1c0d0f"

Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]


class ResponseError(BaseModel):
    code: str = Field(description="`invalid_prompt` or `server_error`", examples=["server_error"])
    message: str = Field(description="for people", examples=["attempts_exhausted: The worker was lost three times."])


class Incomplete(BaseModel):
    reason: str = Field(description="`max_output_tokens` or `content_filter`", examples=["max_output_tokens"])


class ConversationOf(BaseModel):
    id: str = Field(description="the conversation", examples=["conv_01990f6e8a547c3e9d5b2f6a7b1c0d10"])


class InputDetails(BaseModel):
    cached_tokens: int = Field(description="of them, what was read before", examples=[0])
    cache_write_tokens: int = Field(description="always 0: nobody counts it", examples=[0])


class OutputDetails(BaseModel):
    reasoning_tokens: int = Field(description="of them, what was thought", examples=[0])


class ResponseUsage(BaseModel):
    input_tokens: int = Field(description="tokens of the prompt", examples=[5])
    input_tokens_details: InputDetails = Field(description="more of them")
    output_tokens: int = Field(description="tokens of the answer", examples=[2])
    output_tokens_details: OutputDetails = Field(description="more of them")
    total_tokens: int = Field(description="both", examples=[7])


class ResponseView(BaseModel):
    id: str = Field(description="the response: `resp_` and its generation's id", examples=[_ID])
    object: Literal["response"] = Field(description="always `response`", examples=["response"])
    created_at: int = Field(description="Unix time", examples=[1767225600])
    status: Status = Field(description="how far it has come; the last four are final", examples=["completed"])
    background: bool | None = Field(description="as it was asked; null where it is read back", examples=[False])
    error: ResponseError | None = Field(description="of a failed one", examples=[None])
    incomplete_details: Incomplete | None = Field(description="of an incomplete one", examples=[None])
    instructions: str | None = Field(description="as they were asked with", examples=[None])
    max_output_tokens: int | None = Field(description="as it was asked", examples=[256])
    model: str = Field(description="the model that is asked, and in the end the one that answered", examples=["gpt-4"])
    output: list[dict[str, Any]] = Field(
        description="messages, reasoning and calls of tools, once it has ended",
        examples=[
            [
                {
                    "id": _ITEM,
                    "type": "message",
                    "status": "completed",
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "Hi.", "annotations": [], "logprobs": []}],
                }
            ]
        ],
    )
    parallel_tool_calls: bool = Field(description="as it was asked", examples=[True])
    previous_response_id: str | None = Field(description="the one that it goes on from", examples=[None])
    conversation: ConversationOf = Field(description="where it stands")
    reasoning: dict[str, Any] = Field(description="as it was asked", examples=[{"effort": None, "summary": None}])
    store: bool = Field(description="always true: the tenant's policy says what is kept", examples=[True])
    temperature: float | None = Field(description="as it was asked", examples=[0.7])
    text: dict[str, Any] = Field(description="as it was asked", examples=[{"format": {"type": "text"}}])
    tool_choice: str | dict[str, Any] = Field(description="as it was asked", examples=["auto"])
    tools: list[dict[str, Any]] = Field(description="as they were asked with", examples=[[]])
    top_logprobs: int | None = Field(description="as it was asked", examples=[None])
    top_p: float | None = Field(description="as it was asked", examples=[None])
    truncation: str | None = Field(description="as it was asked; null where it is read back", examples=[None])
    usage: ResponseUsage | None = Field(description="what it used, once it has ended")
    metadata: dict[str, str] = Field(description="yours", examples=[{"ticket": "4711"}])


class DeletedResponse(BaseModel):
    id: str = Field(description="the response", examples=[_ID])
    object: Literal["response"] = Field("response", description="always `response`", examples=["response"])
    deleted: Literal[True] = Field(True, description="always true", examples=[True])


class InputItems(BaseModel):
    object: Literal["list"] = Field("list", description="always `list`", examples=["list"])
    data: list[dict[str, Any]] = Field(
        description="messages, and calls of tools with their outputs",
        examples=[
            [
                {
                    "id": _INPUT,
                    "type": "message",
                    "status": "completed",
                    "role": "user",
                    "content": [{"type": "input_text", "text": "Why is the sky blue?"}],
                }
            ]
        ],
    )
    first_id: str | None = Field(description="of the first of them", examples=[_INPUT])
    last_id: str | None = Field(description="what the next page is `after`", examples=[_INPUT])
    has_more: bool = Field(description="whether there is a next page", examples=[False])
