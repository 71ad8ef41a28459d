"""A request for a chat completion as OpenAI's clients write it, and the prompt that it is. Pure.

What Parley does not do is refused by name, so that nothing is silently left undone; what only says how to do the same
(`stream`, `store`, …) is taken.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from command_api.prompt import PromptBody

M = TypeVar("M", bound=BaseModel)


class NotAPrompt(ValueError):
    """It cannot be made a prompt. The message says where and why; ``field`` is where, as a path."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")
        self.field = field
        self.why = why


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ChatTextPart(_Given):
    type: Literal["text"] = Field(description="always `text`")
    text: str = Field(description="what was written", examples=["What is in this picture?"])


class ChatImageUrl(_Given):
    url: str = Field(
        description="`https://…`, or the picture itself as a data URL", examples=["https://example.com/cat.png"]
    )
    detail: Literal["auto", "low", "high"] | None = Field(None, description="how closely the model looks")


class ChatImagePart(_Given):
    type: Literal["image_url"] = Field(description="always `image_url`")
    image_url: ChatImageUrl = Field(description="the picture")


class ChatRefusalPart(_Given):
    type: Literal["refusal"] = Field(description="always `refusal`")
    refusal: str = Field(description="why the model would not answer", examples=["I cannot help with that."])


class ChatCalledFunction(_Given):
    name: str = Field(description="the tool", examples=["get_weather"])
    arguments: str = Field(description="JSON as the model wrote it", examples=['{"city": "Bonn"}'])


class ChatToolCall(_Given):
    id: str = Field(description="what the tool's message names", examples=["call_abc123"])
    type: Literal["function"] = Field("function", description="always `function`")
    function: ChatCalledFunction = Field(description="what it asks for")
    index: int | None = Field(None, description="taken, and of no effect: clients leave it in what they streamed")


ChatPart = Annotated[ChatTextPart | ChatImagePart | ChatRefusalPart, Field(discriminator="type")]


class ChatMessageGiven(_Given):
    role: Literal["system", "developer", "user", "assistant", "tool"] = Field(
        description="who wrote it", examples=["user"]
    )
    content: str | list[ChatPart] | None = Field(
        None, description="what was written, or its parts", examples=["Why is the sky blue?"]
    )
    tool_calls: list[ChatToolCall] | None = Field(None, description="of an assistant's: what it asked for")
    tool_call_id: str | None = Field(None, description="of a tool's: the call that it answers", examples=[None])
    refusal: str | None = Field(None, description="of an assistant's that has no other content")
    annotations: list[Any] | None = Field(None, description="taken, and of no effect", examples=[[]])
    reasoning_content: str | None = Field(None, description="taken, and of no effect: models do not read it again")
    audio: None = Field(None, description="only null is taken")
    function_call: None = Field(None, description="only null is taken: use `tool_calls`")

    def prompt(self) -> dict[str, Any]:
        parts = self.content if isinstance(self.content, list) else None
        return {
            "role": "system" if self.role == "developer" else self.role,
            "content": [_part(part) for part in parts] if parts is not None else self.content or self.refusal or "",
            "tool_calls": [{"id": one.id, **one.function.model_dump()} for one in self.tool_calls or ()],
            "tool_call_id": self.tool_call_id,
        }


def _part(part: ChatPart) -> dict[str, Any]:
    match part:
        case ChatTextPart():
            return part.model_dump()
        case ChatRefusalPart():
            return {"type": "text", "text": part.refusal}
        case ChatImagePart():
            return {"type": "image", "url": part.image_url.url, "detail": part.image_url.detail}


class ChatFunction(_Given):
    name: str = Field(description="letters, digits, _ and -", examples=["get_weather"])
    description: str | None = Field(None, description="what it does, for the model")
    parameters: dict[str, Any] | None = Field(
        None, description="JSON Schema of its arguments", examples=[{"type": "object"}]
    )
    strict: bool | None = Field(None, description="the arguments have to match their schema exactly")


class ChatTool(_Given):
    type: Literal["function"] = Field(description="always `function`")
    function: ChatFunction = Field(description="what the model may ask its client to run")


class ChatFunctionName(_Given):
    name: str = Field(description="the tool", examples=["get_weather"])


class ChatNamedTool(_Given):
    type: Literal["function"] = Field(description="always `function`")
    function: ChatFunctionName = Field(description="the tool that the model has to ask for")


class ChatSchema(_Given):
    name: str = Field(description="what the answer is, for the model", examples=["person"])
    description: str | None = Field(None, description="taken, and of no effect: a schema has descriptions of its own")
    schema_: dict[str, Any] | None = Field(
        None, alias="schema", description="JSON Schema of the answer", examples=[{"type": "object"}]
    )
    strict: bool | None = Field(None, description="it has to match the schema exactly")


class ChatAnyText(_Given):
    type: Literal["text"] = Field(description="always `text`")


class ChatJsonObject(_Given):
    type: Literal["json_object"] = Field(description="always `json_object`")


class ChatJsonSchema(_Given):
    type: Literal["json_schema"] = Field(description="always `json_schema`")
    json_schema: ChatSchema = Field(description="what the answer has to be")


class ChatStreamOptions(_Given):
    include_usage: bool | None = Field(None, description="one more chunk at the end says what was used")
    include_obfuscation: bool | None = Field(None, description="taken, and of no effect")


_SAMPLING = (
    *("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "seed", "parallel_tool_calls"),
    *("reasoning_effort", "top_logprobs"),
)

MOST_CHOICES = 16

_NO_EFFECT = "taken, and of no effect"


class ChatRequest(_Given):
    """https://platform.openai.com/docs/api-reference/chat/create; `top_k` and `min_p` are those of local servers."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "gpt-4", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}]
        }
    )

    model: str | None = Field(None, description="which model; none: the default", examples=["gpt-4"])
    messages: list[ChatMessageGiven] = Field(min_length=1, description="oldest first")
    temperature: float | None = Field(None, description="0 to 2; 0 is the likeliest token always")
    top_p: float | None = Field(None, description="nucleus sampling: the share of likelihood kept")
    top_k: int | None = Field(None, description="sample from the k likeliest tokens")
    min_p: float | None = Field(None, description="drop what is less likely than this share of the best")
    presence_penalty: float | None = Field(None, description="-2 to 2: against what was said at all")
    frequency_penalty: float | None = Field(None, description="-2 to 2: against what was said often")
    max_tokens: int | None = Field(None, description="the older name of `max_completion_tokens`")
    max_completion_tokens: int | None = Field(None, description="most tokens of the answer")
    stop: str | list[str] | None = Field(None, description="the answer ends before any of these")
    seed: int | None = Field(None, description="the same seed samples the same way")
    n: int | None = Field(None, ge=1, le=MOST_CHOICES, description="how many answers")
    tools: list[ChatTool] | None = Field(None, description="what the model may ask its client to run")
    tool_choice: Literal["auto", "none", "required"] | ChatNamedTool | None = Field(
        None, description="whether the model has to ask for a tool, or for which one"
    )
    parallel_tool_calls: bool | None = Field(None, description="the model may ask for several tools at once")
    reasoning_effort: Literal["minimal", "low", "medium", "high"] | None = Field(
        None, description="how much the model thinks before it speaks"
    )
    response_format: Annotated[ChatAnyText | ChatJsonObject | ChatJsonSchema, Field(discriminator="type")] | None = (
        Field(None, description="what the answer has to be; none: any text")
    )
    logprobs: bool | None = Field(None, description="say of each token how likely the model held it")
    top_logprobs: int | None = Field(None, description="with `logprobs`: of so many others in its place, too")
    metadata: dict[str, str] | None = Field(
        None, description="yours; returned with the generation", examples=[{"ticket": "4711"}]
    )
    stream: bool | None = Field(None, description="the answer comes as it is made, as Server-Sent Events")
    stream_options: ChatStreamOptions | None = Field(None, description="of the stream")
    store: bool | None = Field(None, description="go on where the client disconnects; every answer is stored anyway")
    user: str | None = Field(None, max_length=512, description="who asks, at yours; kept in the metadata")
    safety_identifier: str | None = Field(None, description=_NO_EFFECT)
    prompt_cache_key: str | None = Field(None, description=_NO_EFFECT)
    service_tier: str | None = Field(None, description=_NO_EFFECT)
    modalities: list[Literal["text"]] | None = Field(None, description="only text comes out", examples=[["text"]])
    logit_bias: dict[str, float] | None = Field(None, max_length=0, description="only none is taken", examples=[{}])

    def prompt(self) -> PromptBody:
        """Raises NotAPrompt."""
        given = {name: getattr(self, name) for name in _SAMPLING}
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        tool_choice = self.tool_choice.function.model_dump() if isinstance(self.tool_choice, ChatNamedTool) else None
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
        return valid(PromptBody, body)


def _response_format(given: ChatAnyText | ChatJsonObject | ChatJsonSchema | None) -> dict[str, Any] | None:
    match given:
        case ChatJsonObject():
            return {}
        case ChatJsonSchema(json_schema=schema):
            return {"name": schema.name, "json_schema": schema.schema_ or {}, "strict": schema.strict}
    return None


def chat_request(body: dict[str, Any]) -> ChatRequest:
    """A request that wants one answer. Raises NotAPrompt."""
    request = valid(ChatRequest, body)
    if request.n not in (None, 1):
        raise NotAPrompt("n", "only 1 is taken here")
    return request


def valid(model: type[M], body: dict[str, Any]) -> M:
    """Raises NotAPrompt."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])).removeprefix("parameters.") or "the request"
        raise NotAPrompt(where, first["msg"].removeprefix("Value error, ")) from None
