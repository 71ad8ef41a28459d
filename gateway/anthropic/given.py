"""What Anthropic's clients write: messages of blocks, and tools. Pure.

https://platform.claude.com/docs/en/api/messages; what Parley does not do is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationError

from command_api.chat_request import NotAPrompt
from command_api.message_body import Body, MessageBody

CacheControl = Annotated[
    dict[str, Any] | None, Field(description="taken, and of no effect: providers cache by themselves", examples=[None])
]


class GivenText(Body):
    type: Literal["text"] = Field(description="always `text`")
    text: str = Field(min_length=1, description="what was written", examples=["What is in this picture?"])
    cache_control: CacheControl = None
    citations: list[Any] | None = Field(None, max_length=0, description="only none are taken", examples=[None])

    @property
    def part(self) -> dict[str, Any]:
        return {"type": "text", "text": self.text}


class GivenBase64(Body):
    type: Literal["base64"] = Field(description="always `base64`")
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"] = Field(description="of the picture")
    data: str = Field(description="the picture", examples=["iVBORw0KGgo="])


class GivenUrl(Body):
    type: Literal["url"] = Field(description="always `url`")
    url: str = Field(description="where the provider gets it", examples=["https://example.com/cat.png"])


class GivenImage(Body):
    type: Literal["image"] = Field(description="always `image`")
    source: Annotated[GivenBase64 | GivenUrl, Field(discriminator="type")] = Field(description="the picture")
    cache_control: CacheControl = None

    @property
    def part(self) -> dict[str, Any]:
        source = self.source
        url = source.url if isinstance(source, GivenUrl) else f"data:{source.media_type};base64,{source.data}"
        return {"type": "image", "url": url}


class GivenThinking(Body):
    type: Literal["thinking"] = Field(description="always `thinking`")
    thinking: str = Field(description="taken, and of no effect: models do not read it again")
    signature: str = Field("", description="taken, and of no effect")


class GivenRedactedThinking(Body):
    type: Literal["redacted_thinking"] = Field(description="always `redacted_thinking`")
    data: str = Field(description="taken, and of no effect: models do not read it again")


class GivenToolUse(Body):
    type: Literal["tool_use"] = Field(description="always `tool_use`")
    id: str = Field(description="what the tool's result names", examples=["toolu_01A09q90qw90lq917835lq9"])
    name: str = Field(description="the tool", examples=["get_weather"])
    input: dict[str, Any] = Field(description="what it is to be run with", examples=[{"city": "Bonn"}])
    cache_control: CacheControl = None

    @property
    def call(self) -> dict[str, Any]:
        """Raises ValueError: a number in it is none of JSON's."""
        return {
            "id": self.id,
            "name": self.name,
            "arguments": json.dumps(self.input, ensure_ascii=False, allow_nan=False),
        }


def _way(content: Any) -> str:
    return "text" if isinstance(content, str) else "blocks"


Texts = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[GivenText], Tag("blocks")],
    Discriminator(_way),
]
"""A text, or blocks of it."""


class GivenToolResult(Body):
    type: Literal["tool_result"] = Field(description="always `tool_result`")
    tool_use_id: str = Field(description="the call that it answers", examples=["toolu_01A09q90qw90lq917835lq9"])
    content: Texts = Field("", description="what the tool said; only text is taken", examples=["15 degrees"])
    is_error: bool = Field(False, description="the tool failed: the model reads `Error: ` before what it said")
    cache_control: CacheControl = None

    @property
    def message(self) -> dict[str, Any]:
        said = self.content if isinstance(self.content, str) else "".join(one.text for one in self.content)
        content = f"Error: {said}" if self.is_error else said
        return {"role": "tool", "tool_call_id": self.tool_use_id, "content": content}


Block = Annotated[
    GivenText | GivenImage | GivenThinking | GivenRedactedThinking | GivenToolUse | GivenToolResult,
    Field(discriminator="type"),
]

_MAY_HAVE: dict[str, tuple[type[Body], ...]] = {
    "user": (GivenText, GivenImage, GivenToolResult),
    "assistant": (GivenText, GivenThinking, GivenRedactedThinking, GivenToolUse),
    "system": (GivenText,),
}


class GivenMessage(Body):
    role: Literal["user", "assistant", "system"] = Field(description="who wrote it", examples=["user"])
    content: Annotated[Annotated[str, Tag("text")] | Annotated[list[Block], Tag("blocks")], Discriminator(_way)] = (
        Field(description="what was written, or its blocks", examples=["Why is the sky blue?"])
    )

    def messages(self, at: int) -> Iterator[MessageBody]:
        """What it is in Parley's words; ``at`` is its place. What a tool said is a message of its own.

        Raises NotAPrompt.
        """
        for one in self._written(at):
            try:
                yield MessageBody.model_validate(one)
            except ValidationError as error:
                first = error.errors(include_input=False, include_url=False)[0]
                where = ".".join(map(str, (f"messages.{at}", *first["loc"])))
                raise NotAPrompt(where, first["msg"].removeprefix("Value error, ")) from None

    def _written(self, at: int) -> Iterator[dict[str, Any]]:
        if isinstance(self.content, str):
            yield {"role": self.role, "content": self.content}
            return
        for number, block in enumerate(self.content):
            if not isinstance(block, _MAY_HAVE[self.role]):
                raise NotAPrompt(f"messages.{at}.content.{number}", f"{block.type!r} is no block of role {self.role!r}")
        if self.role == "assistant":
            yield self._answer(at)
            return
        parts: list[dict[str, Any]] = []
        for block in self.content:
            if isinstance(block, GivenText | GivenImage):
                parts.append(block.part)
            elif isinstance(block, GivenToolResult):
                if parts:
                    yield {"role": self.role, "content": _content(parts)}
                    parts = []
                yield block.message
        if parts or not self.content:
            yield {"role": self.role, "content": _content(parts)}

    def _answer(self, at: int) -> dict[str, Any]:
        try:
            calls = [block.call for block in self.content if isinstance(block, GivenToolUse)]
        except ValueError:
            raise NotAPrompt(f"messages.{at}", "the input of a `tool_use` has a number that JSON has not") from None
        parts = [block.part for block in self.content if isinstance(block, GivenText)]
        return {"role": "assistant", "content": _content(parts), "tool_calls": calls}


def _content(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    if not parts:
        return ""
    return str(parts[0]["text"]) if len(parts) == 1 and parts[0]["type"] == "text" else parts


class GivenTool(Body):
    type: Literal["custom"] | None = Field(None, description="`custom`: tools that the provider runs are not taken")
    name: str = Field(description="letters, digits, _ and -", examples=["get_weather"])
    description: str | None = Field(
        None, description="what it does, for the model", examples=["The weather of a city."]
    )
    input_schema: dict[str, Any] = Field(
        description="JSON Schema of its input",
        examples=[{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}],
    )
    strict: bool | None = Field(None, description="the input has to match its schema exactly")
    cache_control: CacheControl = None
    eager_input_streaming: bool | None = Field(None, description="taken, and of no effect: it streams as it comes")

    @property
    def tool(self) -> dict[str, Any]:
        about = {"name": self.name, "description": self.description, "strict": self.strict}
        return about | {"parameters": self.input_schema}
