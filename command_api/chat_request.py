"""A request for a chat completion as OpenAI's clients write it, and the prompt that it is. Pure.

What Parley does not do is refused by name, so that nothing is silently left undone; what only says how to do the same
(`stream`, `store`, `user`, …) is taken and has no effect.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from command_api.prompt import PromptBody

M = TypeVar("M", bound=BaseModel)


class NotAPrompt(ValueError):
    """It cannot be made a prompt. The message says where and why."""


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _TextPart(_Given):
    type: Literal["text"]
    text: str


class _ImageUrl(_Given):
    url: str
    detail: Literal["auto", "low", "high"] | None = None


class _ImagePart(_Given):
    type: Literal["image_url"]
    image_url: _ImageUrl


class _CalledFunction(_Given):
    name: str
    arguments: str


class _ToolCall(_Given):
    id: str
    type: Literal["function"] = "function"
    function: _CalledFunction


class _Message(_Given):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Annotated[_TextPart | _ImagePart, Field(discriminator="type")]] | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_call_id: str | None = None
    refusal: None = None

    def prompt(self) -> dict[str, Any]:
        parts = self.content if isinstance(self.content, list) else None
        return {
            "role": "system" if self.role == "developer" else self.role,
            "content": [_part(part) for part in parts] if parts is not None else self.content or "",
            "tool_calls": [{"id": one.id, **one.function.model_dump()} for one in self.tool_calls or ()],
            "tool_call_id": self.tool_call_id,
        }


def _part(part: _TextPart | _ImagePart) -> dict[str, Any]:
    if isinstance(part, _TextPart):
        return part.model_dump()
    return {"type": "image", "url": part.image_url.url, "detail": part.image_url.detail}


class _Function(_Given):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _Tool(_Given):
    type: Literal["function"]
    function: _Function


class _FunctionName(_Given):
    name: str


class _NamedTool(_Given):
    type: Literal["function"]
    function: _FunctionName


class _Schema(_Given):
    name: str
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class _AnyText(_Given):
    type: Literal["text"]


class _JsonObject(_Given):
    type: Literal["json_object"]


class _JsonSchema(_Given):
    type: Literal["json_schema"]
    json_schema: _Schema


_SAMPLING = (
    *("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "seed", "parallel_tool_calls"),
    *("reasoning_effort", "top_logprobs"),
)


class ChatRequest(_Given):
    """https://platform.openai.com/docs/api-reference/chat/create; `top_k` and `min_p` are those of local servers."""

    model: str | None = None
    messages: list[_Message] = Field(min_length=1)
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    n: Literal[1] | None = None
    tools: list[_Tool] | None = None
    tool_choice: Literal["auto", "none", "required"] | _NamedTool | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["minimal", "low", "medium", "high"] | None = None
    response_format: Annotated[_AnyText | _JsonObject | _JsonSchema, Field(discriminator="type")] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    metadata: dict[str, str] | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    store: bool | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None

    def prompt(self) -> PromptBody:
        """Raises NotAPrompt."""
        given = {name: getattr(self, name) for name in _SAMPLING}
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        tool_choice = self.tool_choice.function.model_dump() if isinstance(self.tool_choice, _NamedTool) else None
        most = self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
        body = {
            "model": self.model,
            "messages": [message.prompt() for message in self.messages],
            "tools": [tool.function.model_dump() for tool in self.tools or ()],
            "response_format": _response_format(self.response_format),
            "metadata": self.metadata or {},
            "parameters": {
                **given,
                "max_tokens": most,
                "stop": stop,
                "tool_choice": tool_choice or self.tool_choice,
                "logprobs": bool(self.logprobs),
            },
        }
        return _valid(PromptBody, body)


def _response_format(given: _AnyText | _JsonObject | _JsonSchema | None) -> dict[str, Any] | None:
    match given:
        case _JsonObject():
            return {}
        case _JsonSchema(json_schema=schema):
            return {"name": schema.name, "json_schema": schema.schema_ or {}, "strict": schema.strict}
    return None


def chat_request(body: dict[str, Any]) -> ChatRequest:
    """Raises NotAPrompt."""
    return _valid(ChatRequest, body)


def _valid(model: type[M], body: dict[str, Any]) -> M:
    try:
        return model.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the request"
        raise NotAPrompt(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None
