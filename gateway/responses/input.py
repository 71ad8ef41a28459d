"""What a response is asked with: items, and the messages that they are. Pure.

https://platform.openai.com/docs/api-reference/responses/create#responses_create-input
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

NO_EFFECT = "taken, and of no effect"

Status = Literal["in_progress", "completed", "incomplete"]


class Given(BaseModel):
    """What a client sends. What Parley does not do is refused by its name."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class InputText(Given):
    type: Literal["input_text"] = Field(description="always `input_text`")
    text: str = Field(description="what was written", examples=["What is in this picture?"])


class InputImage(Given):
    type: Literal["input_image"] = Field(description="always `input_image`")
    image_url: str = Field(
        description="`https://…`, or the picture itself as a data URL", examples=["https://example.com/cat.png"]
    )
    detail: Literal["auto", "low", "high"] | None = Field(None, description="how closely the model looks")
    file_id: None = Field(None, description="only null is taken: give the picture")


class OutputText(Given):
    type: Literal["output_text"] = Field(description="always `output_text`")
    text: str = Field(description="what a model said", examples=["A cat."])
    annotations: list[Any] | None = Field(None, description=NO_EFFECT, examples=[[]])
    logprobs: list[Any] | None = Field(None, description=NO_EFFECT, examples=[[]])


class Refused(Given):
    type: Literal["refusal"] = Field(description="always `refusal`")
    refusal: str = Field(description="why the model would not answer", examples=["I cannot help with that."])


Part = Annotated[InputText | InputImage | OutputText | Refused, Field(discriminator="type")]


class InputMessage(Given):
    type: Literal["message"] = Field("message", description="always `message`; may be left out")
    role: Literal["user", "assistant", "system", "developer"] = Field(description="who wrote it", examples=["user"])
    content: str | list[Part] = Field(description="what was written, or its parts", examples=["Why is the sky blue?"])
    id: str | None = Field(None, description=NO_EFFECT)
    status: Status | None = Field(None, description=NO_EFFECT)
    phase: str | None = Field(None, description=NO_EFFECT)

    @model_validator(mode="after")
    def _only_users_have_images(self) -> InputMessage:
        if self.role != "user" and any(isinstance(one, InputImage) for one in self.content):
            raise ValueError("only a user's message has images")
        return self


class CalledFunction(Given):
    type: Literal["function_call"] = Field(description="always `function_call`")
    call_id: str = Field(description="what its output names", examples=["call_abc123"])
    name: str = Field(description="the tool", examples=["get_weather"])
    arguments: str = Field(description="JSON as the model wrote it", examples=['{"city": "Bonn"}'])
    id: str | None = Field(None, description=NO_EFFECT)
    status: Status | None = Field(None, description=NO_EFFECT)


class FunctionOutput(Given):
    type: Literal["function_call_output"] = Field(description="always `function_call_output`")
    call_id: str = Field(description="the call that it answers", examples=["call_abc123"])
    output: str | list[InputText] = Field(description="what the tool gave", examples=["12 degrees"])
    id: str | None = Field(None, description=NO_EFFECT)
    status: Status | None = Field(None, description=NO_EFFECT)


class Thought(Given):
    """Taken, and of no effect: models do not read again what they thought."""

    type: Literal["reasoning"] = Field(description="always `reasoning`")
    id: str | None = Field(None, description=NO_EFFECT)
    summary: list[Any] | None = Field(None, description=NO_EFFECT, examples=[[]])
    content: list[Any] | None = Field(None, description=NO_EFFECT, examples=[[]])
    encrypted_content: str | None = Field(None, description=NO_EFFECT)
    status: Status | None = Field(None, description=NO_EFFECT)


class Reference(Given):
    type: Literal["item_reference"] = Field(description="always `item_reference`")
    id: str = Field(
        description="an item of the output of a response", examples=["msg_01990f6e8a547c3e9d5b2f6a7b1c0d11_1_0"]
    )


def _type_of(value: Any) -> str:
    given = value.get("type", "message") if isinstance(value, Mapping) else getattr(value, "type", "message")
    return given if isinstance(given, str) else "message"


Item = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[CalledFunction, Tag("function_call")]
    | Annotated[FunctionOutput, Tag("function_call_output")]
    | Annotated[Thought, Tag("reasoning")]
    | Annotated[Reference, Tag("item_reference")],
    Discriminator(_type_of),
]


class Said(NamedTuple):
    """What items say: the texts of those who instruct, and the messages of all others as prompts have them."""

    instructions: list[str]
    messages: list[dict[str, Any]]


def said(items: Sequence[Item], referred: Mapping[str, Mapping[str, Any]]) -> Said:
    """``referred`` are output items by their ids. Raises KeyError where one of ``items`` refers to another one."""
    instructions: list[str] = []
    messages: list[dict[str, Any]] = []
    for item in items:
        match item:
            case Reference(id=id):
                _add_output(messages, referred[id])
            case InputMessage(role="system" | "developer"):
                instructions.append(_text(item.content))
            case InputMessage(role="assistant"):
                messages.append({"role": "assistant", "content": _text(item.content)})
            case InputMessage():
                content = item.content
                parts = content if isinstance(content, str) else [_part(one) for one in content]
                messages.append({"role": "user", "content": parts})
            case CalledFunction():
                _add_call(messages, item.call_id, item.name, item.arguments)
            case FunctionOutput():
                messages.append({"role": "tool", "content": _text(item.output), "tool_call_id": item.call_id})
    return Said([one for one in instructions if one], messages)


def _add_output(messages: list[dict[str, Any]], item: Mapping[str, Any]) -> None:
    if item["type"] == "message":
        messages.append({"role": "assistant", "content": "".join(part["text"] for part in item["content"])})
    elif item["type"] == "function_call":
        _add_call(messages, item["call_id"], item["name"], item["arguments"])


def _add_call(messages: list[dict[str, Any]], call_id: str, name: str, arguments: str) -> None:
    """With what its model said before it, and with the calls beside it."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    messages[-1].setdefault("tool_calls", []).append({"id": call_id, "name": name, "arguments": arguments})


def _text(content: str | Sequence[Part]) -> str:
    if isinstance(content, str):
        return content
    return "".join(one["text"] for one in map(_part, content) if one["type"] == "text")


def _part(part: Part) -> dict[str, Any]:
    match part:
        case InputImage():
            return {"type": "image", "url": part.image_url, "detail": part.detail}
        case Refused():
            return {"type": "text", "text": part.refusal}
        case _:
            return {"type": "text", "text": part.text}
