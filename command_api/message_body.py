"""The messages and tools of a prompt, as clients write them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from event_schemas.chat import ChatMessage, ImagePart, ResponseFormat, Role, TextPart, Tool, ToolCall


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain the character U+0000, which cannot be stored")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must not contain half of a surrogate pair, which is no character") from None
    return text


def _storable_json(value: dict[str, Any]) -> dict[str, Any]:
    for text in _strings(value):
        _storable(text)
    return value


def _strings(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for name, inner in value.items():
                yield name
                yield from _strings(inner)
        case list():
            for inner in value:
                yield from _strings(inner)


Text = Annotated[str, AfterValidator(_storable)]
JsonSchema = Annotated[dict[str, Any], AfterValidator(_storable_json)]

_IMAGE_URL = re.compile(r"https?://\S+|data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/]+={0,2}")
_TOOL_NAME = r"^[a-zA-Z0-9_-]{1,64}$"


def _image_url(url: str) -> str:
    if not _IMAGE_URL.fullmatch(url):
        raise ValueError("must be https://…, or data:image/png;base64,… (or jpeg, gif, webp)")
    return url


class Body(BaseModel):
    """What clients send. A field that is not known is refused, so that nothing is silently left undone."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TextPartBody(Body):
    type: Literal["text"] = Field(description="always `text`")
    text: Text = Field(min_length=1, description="what was written", examples=["What is in this picture?"])


class ImagePartBody(Body):
    type: Literal["image"] = Field(description="always `image`")
    url: Annotated[str, AfterValidator(_image_url)] = Field(
        description="where the provider gets it, or the picture itself as a data URL",
        examples=["https://example.com/cat.png"],
    )
    detail: Literal["auto", "low", "high"] | None = Field(None, description="how closely the model looks")


PartBody = Annotated[TextPartBody | ImagePartBody, Field(discriminator="type")]


class ToolCallBody(Body):
    id: Text = Field(
        min_length=1, max_length=200, description="what the tool's message names", examples=["call_abc123"]
    )
    name: str = Field(pattern=_TOOL_NAME, description="the tool", examples=["get_weather"])
    arguments: Text = Field(description="JSON as the model wrote it", examples=['{"city": "Bonn"}'])


class MessageBody(Body):
    role: Role = Field(description="who wrote it", examples=["user"])
    content: Text | tuple[PartBody, ...] = Field(
        "", description="what was written, or its parts", examples=["Why is the sky blue?"]
    )
    tool_calls: tuple[ToolCallBody, ...] = Field((), max_length=128, description="of an assistant's: what it asked for")
    tool_call_id: Text | None = Field(
        None, min_length=1, max_length=200, description="of a tool's: the call that it answers", examples=[None]
    )

    @model_validator(mode="after")
    def _fits_its_role(self) -> MessageBody:
        if not self.content and not self.tool_calls and self.role != "tool":
            raise ValueError("`content` must not be empty")
        if self.tool_calls and self.role != "assistant":
            raise ValueError("only an assistant's message has `tool_calls`")
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise ValueError("a tool's message names its `tool_call_id`, and only that one does")
        if self.role != "user" and not isinstance(self.content, str) and any(p.type == "image" for p in self.content):
            raise ValueError("only a user's message has images")
        return self

    def message(self) -> ChatMessage:
        """As commands carry it."""
        return ChatMessage(
            role=self.role,
            content=self.content if isinstance(self.content, str) else tuple(map(_part, self.content)),
            tool_calls=tuple(ToolCall(id=one.id, name=one.name, arguments=one.arguments) for one in self.tool_calls),
            tool_call_id=self.tool_call_id,
        )


def _part(part: TextPartBody | ImagePartBody) -> TextPart | ImagePart:
    return TextPart(text=part.text) if isinstance(part, TextPartBody) else ImagePart(url=part.url, detail=part.detail)


class ToolBody(Body):
    """A function that the model may ask for. Parley runs none: its arguments come in the answer's `tool_calls`."""

    name: str = Field(pattern=_TOOL_NAME, description="letters, digits, _ and -", examples=["get_weather"])
    description: Text | None = Field(
        None, max_length=8192, description="what it does, for the model", examples=["The weather of a city now."]
    )
    parameters: JsonSchema | None = Field(
        None,
        description="JSON Schema of its arguments",
        examples=[{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}],
    )
    strict: bool | None = Field(None, description="the arguments have to match their schema exactly")

    def tool(self) -> Tool:
        """As commands carry it."""
        return Tool(**self.model_dump())


class NamedToolBody(Body):
    name: str = Field(pattern=_TOOL_NAME, description="the tool that it has to ask for", examples=["get_weather"])


class ResponseFormatBody(Body):
    """The answer has to be JSON."""

    name: str = Field("answer", pattern=_TOOL_NAME, description="what it is, for the model")
    json_schema: JsonSchema | None = Field(
        None, description="of this schema; none: any JSON object", examples=[{"type": "object"}]
    )
    strict: bool | None = Field(None, description="it has to match the schema exactly")

    def response_format(self) -> ResponseFormat:
        """As commands carry it."""
        return ResponseFormat(**self.model_dump())
