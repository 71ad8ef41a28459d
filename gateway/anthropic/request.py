"""Requests as Anthropic's clients write them, and the prompts that they are. Pure.

https://platform.claude.com/docs/en/api/messages; what Parley does not do is refused by name, and what only says how to
do the same is taken.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from command_api.chat_request import NotAPrompt, valid
from command_api.message_body import Body, MessageBody
from command_api.prompt import PromptBody
from gateway.anthropic.given import CacheControl, GivenMessage, GivenText, GivenTool, Texts

Effort = Literal["low", "medium", "high"]
Display = Annotated[
    Literal["summarized", "omitted"] | None,
    Field(description="`omitted`: what was thought is left out of the answer", examples=[None]),
]

_EFFORTS: tuple[tuple[int, Effort], ...] = ((16384, "high"), (8192, "medium"), (0, "low"))
"""How hard a model thinks for a budget of so many tokens and more: no harder than Claude is asked to for as much."""

_NO_EFFECT = "taken, and of no effect"


class ThinkingEnabled(Body):
    type: Literal["enabled"] = Field(description="always `enabled`")
    budget_tokens: int = Field(
        ge=1024, description="effort `low`; from 8,192 on `medium`, from 16,384 on `high`", examples=[4096]
    )
    display: Display = None


class ThinkingAdaptive(Body):
    type: Literal["adaptive"] = Field(description="effort `high`, or that of `output_config`")
    display: Display = None


class ThinkingDisabled(Body):
    type: Literal["disabled"] = Field(description="no effort is asked for, and what was thought anyway is left out")


class ChoiceAuto(Body):
    type: Literal["auto", "any", "none"] = Field(description="`any`: the model has to ask for a tool")
    disable_parallel_tool_use: bool = Field(False, description="for one tool at a time")


class ChoiceTool(Body):
    type: Literal["tool"] = Field(description="always `tool`")
    name: str = Field(description="the tool that the model has to ask for", examples=["get_weather"])
    disable_parallel_tool_use: bool = Field(False, description="for one tool at a time")


class JsonFormat(Body):
    type: Literal["json_schema"] = Field(description="always `json_schema`")
    schema_: dict[str, Any] = Field(
        alias="schema", description="JSON Schema of the answer", examples=[{"type": "object"}]
    )


class OutputConfig(Body):
    effort: Effort | None = Field(None, description="how much the model thinks before it speaks")
    format: JsonFormat | None = Field(None, description="what the answer has to be; none: any text")


class CountRequest(Body):
    """https://platform.claude.com/docs/en/api/messages-count-tokens"""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "gemma-3-270m", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}]
        }
    )

    model: str = Field(description="which model", examples=["gemma-3-270m"])
    messages: list[GivenMessage] = Field(min_length=1, description="oldest first; the last one is not the assistant's")
    system: Texts | None = Field(None, description="instructions, put before `messages`", examples=["Be brief."])
    tools: list[GivenTool] | None = Field(None, description="what the model may ask its client to run")
    tool_choice: Annotated[ChoiceAuto | ChoiceTool, Field(discriminator="type")] | None = Field(
        None, description="whether the model has to ask for a tool, or for which one"
    )
    thinking: Annotated[ThinkingEnabled | ThinkingAdaptive | ThinkingDisabled, Field(discriminator="type")] | None = (
        Field(None, description="how much the model thinks before it speaks; none: as it does by itself")
    )
    output_config: OutputConfig | None = Field(None, description="of the answer")
    cache_control: CacheControl = None
    speed: Literal["standard"] | None = Field(None, description=_NO_EFFECT)

    @property
    def shows_thinking(self) -> bool:
        """Whether the client wants to see what was thought."""
        match self.thinking:
            case ThinkingDisabled():
                return False
            case ThinkingEnabled(display=display) | ThinkingAdaptive(display=display):
                return display != "omitted"
        return True

    @property
    def effort(self) -> Effort | None:
        if self.output_config is not None and self.output_config.effort is not None:
            return self.output_config.effort
        match self.thinking:
            case ThinkingEnabled(budget_tokens=budget):
                return next(effort for least, effort in _EFFORTS if budget >= least)
            case ThinkingAdaptive():
                return "high"
        return None

    def prompt(self) -> PromptBody:
        """Raises NotAPrompt."""
        messages = [one for at, given in enumerate(self.messages) for one in given.messages(at)]
        if messages[-1].role not in ("user", "tool"):
            raise NotAPrompt("messages", "the last one must not be the assistant's: no answer is begun for the model")
        if self.system:
            messages = [_system(self.system), *messages]
        output = self.output_config
        shape = None if output is None or output.format is None else {"json_schema": output.format.schema_}
        body = {
            "model": self.model,
            "messages": messages,
            "tools": [one.tool for one in self.tools or ()],
            "response_format": shape,
            "metadata": self._metadata(),
            "parameters": self._parameters(),
        }
        return valid(PromptBody, body)

    def _metadata(self) -> dict[str, str]:
        return {}

    def _parameters(self) -> dict[str, Any]:
        choice = self.tool_choice
        found: dict[str, Any] = {"reasoning_effort": self.effort}
        if choice is not None:
            found["tool_choice"] = {"name": choice.name} if isinstance(choice, ChoiceTool) else _CHOICES[choice.type]
            found["parallel_tool_calls"] = False if choice.disable_parallel_tool_use else None
        return found


def _system(given: str | list[GivenText]) -> MessageBody:
    said = given if isinstance(given, str) else [one.part for one in given]
    try:
        return MessageBody.model_validate({"role": "system", "content": said})
    except ValidationError as error:
        raise NotAPrompt("system", error.errors()[0]["msg"].removeprefix("Value error, ")) from None


_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


class MessagesRequest(CountRequest):
    """https://platform.claude.com/docs/en/api/messages"""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "gemma-3-270m",
                    "max_tokens": 256,
                    "messages": [{"role": "user", "content": "Why is the sky blue?"}],
                }
            ]
        }
    )

    max_tokens: int = Field(description="most tokens of the answer, thought ones too", examples=[256])
    temperature: float | None = Field(None, ge=0, le=1, description="0 is the likeliest token always")
    top_p: float | None = Field(None, description="nucleus sampling: the share of likelihood kept")
    top_k: int | None = Field(None, description="sample from the k likeliest tokens")
    stop_sequences: list[str] | None = Field(None, description="the answer ends before any of these")
    stream: bool = Field(False, description="the answer comes as it is made, as Server-Sent Events")
    metadata: dict[str, str | None] | None = Field(
        None,
        description="`user_id`: who asks, at yours; `conversation_id` is what the header `Parley-Conversation-Id` is;"
        " others are yours. They are returned with the generation",
        examples=[{"user_id": "13803d75-b4b5-4c3e-b2a2-6f21399b021b"}],
    )
    service_tier: Literal["auto", "standard_only"] | None = Field(None, description=_NO_EFFECT)
    inference_geo: None = Field(None, description="only null is taken")
    container: None = Field(None, description="only null is taken")

    def _metadata(self) -> dict[str, str]:
        return {name: value for name, value in (self.metadata or {}).items() if value is not None}

    def _parameters(self) -> dict[str, Any]:
        sampling = {name: getattr(self, name) for name in ("max_tokens", "temperature", "top_p", "top_k")}
        return {**super()._parameters(), **sampling, "stop": tuple(self.stop_sequences or ())}
