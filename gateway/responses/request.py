"""A request for a response as OpenAI's clients write it, and the prompt that it is. Pure.

https://platform.openai.com/docs/api-reference/responses/create
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import ConfigDict, Field, ValidationError

from command_api.prompt import PromptBody
from gateway.problems import invalid
from gateway.responses.input import NO_EFFECT, Given, InputMessage, Item, Reference, said

LOGPROBS = "message.output_text.logprobs"


class Tool(Given):
    type: Literal["function"] = Field(description="always `function`: Parley runs no tools")
    name: str = Field(description="letters, digits, _ and -", examples=["get_weather"])
    description: str | None = Field(None, description="what it does, for the model")
    parameters: dict[str, Any] | None = Field(
        None, description="JSON Schema of its arguments", examples=[{"type": "object"}]
    )
    strict: bool | None = Field(None, description="the arguments have to match their schema exactly")


class NamedTool(Given):
    type: Literal["function"] = Field(description="always `function`")
    name: str = Field(description="the tool that the model has to ask for", examples=["get_weather"])


class AnyText(Given):
    type: Literal["text"] = Field(description="always `text`")


class JsonObject(Given):
    type: Literal["json_object"] = Field(description="always `json_object`")


class JsonSchema(Given):
    type: Literal["json_schema"] = Field(description="always `json_schema`")
    name: str = Field(description="what the answer is, for the model", examples=["person"])
    schema_: dict[str, Any] = Field(alias="schema", description="JSON Schema of it", examples=[{"type": "object"}])
    description: str | None = Field(None, description="taken, and of no effect: a schema has descriptions of its own")
    strict: bool | None = Field(None, description="it has to match the schema exactly")


class TextWish(Given):
    format: Annotated[AnyText | JsonObject | JsonSchema, Field(discriminator="type")] | None = Field(
        None, description="what the answer has to be; none: any text"
    )
    verbosity: Literal["medium"] | None = Field(None, description="only `medium` is taken")


class Reasoning(Given):
    effort: Literal["minimal", "low", "medium", "high"] | None = Field(
        None, description="how much the model thinks before it speaks"
    )
    summary: Literal["auto", "concise", "detailed"] | None = Field(
        None, description="taken, and of no effect: what a model says that it thought is told as it is"
    )
    generate_summary: Literal["auto", "concise", "detailed"] | None = Field(None, description=NO_EFFECT)


class Conversation(Given):
    id: str = Field(description="the conversation", examples=["conv_01990f6e8a547c3e9d5b2f6a7b1c0d10"])


class StreamOptions(Given):
    include_obfuscation: bool | None = Field(None, description=NO_EFFECT)


class ResponseRequest(Given):
    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "gpt-4", "input": "Why is the sky blue?"}]})

    model: str | None = Field(None, description="which model; none: the default", examples=["gpt-4"])
    input: str | Annotated[list[Item], Field(min_length=1)] = Field(
        description="one message of a user, or items, oldest first", examples=["Why is the sky blue?"]
    )
    instructions: str | None = Field(None, description="for this response only", examples=["Answer in one sentence."])
    previous_response_id: str | None = Field(
        None,
        description="the response that this one goes on from; what stands before it is read again",
        examples=["resp_01990f6e8a547c3e9d5b2f6a7b1c0d11"],
    )
    conversation: str | Conversation | None = Field(
        None,
        description="the conversation to go on with after its newest answer: `conv_…`, or its id as Parley writes it",
        examples=["conv_01990f6e8a547c3e9d5b2f6a7b1c0d10"],
    )
    background: bool | None = Field(None, description="answer at once, before there is an answer")
    stream: bool | None = Field(None, description="the response comes as it is made, as Server-Sent Events")
    stream_options: StreamOptions | None = Field(None, description="of the stream")
    store: bool | None = Field(
        None,
        description="false: a client that goes away stops it; what is kept is for the tenant to say, not for this",
    )
    tools: list[Tool] | None = Field(None, description="what the model may ask its client to run")
    tool_choice: Literal["auto", "none", "required"] | NamedTool | None = Field(
        None, description="whether the model has to ask for a tool, or for which one"
    )
    parallel_tool_calls: bool | None = Field(None, description="the model may ask for several tools at once")
    text: TextWish | None = Field(None, description="what the answer has to be")
    reasoning: Reasoning | None = Field(None, description="of models that think before they speak")
    max_output_tokens: int | None = Field(None, description="most tokens of the answer")
    temperature: float | None = Field(None, description="0 to 2; 0 is the likeliest token always")
    top_p: float | None = Field(None, description="nucleus sampling: the share of likelihood kept")
    top_logprobs: int | None = Field(
        None, description="say of each token how likely the model held it, and of so many others in its place"
    )
    include: list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None = Field(
        None,
        description="with logprobs, how likely the model held each token; encrypted reasoning is taken, and of no"
        " effect: models do not read again what they thought",
    )
    truncation: Literal["auto", "disabled"] | None = Field(
        None, description="what does not fit the model: its oldest turns are left out, or it may be refused"
    )
    metadata: dict[str, str] | None = Field(
        None, description="yours; returned with the response", examples=[{"ticket": "4711"}]
    )
    user: str | None = Field(None, max_length=512, description="who asks, at yours; kept in the metadata")
    safety_identifier: str | None = Field(None, description=NO_EFFECT)
    prompt_cache_key: str | None = Field(None, description=NO_EFFECT)
    prompt_cache_retention: str | None = Field(None, description=NO_EFFECT)
    service_tier: str | None = Field(None, description=NO_EFFECT)
    max_tool_calls: None = Field(None, description="only null is taken: Parley runs no tools")
    prompt: None = Field(None, description="only null is taken")

    @property
    def references(self) -> list[str]:
        """Ids of the output items that its input refers to."""
        return [one.id for one in self.input if isinstance(one, Reference)] if isinstance(self.input, list) else []

    @property
    def keeps_on(self) -> bool:
        """Whether it goes on where its client goes away."""
        return bool(self.background) or self.store is not False

    def prompt_of(
        self,
        referred: Mapping[str, Mapping[str, Any]],
        *,
        model: str | None,
        conversation: UUID | None,
        previous: UUID | None,
    ) -> PromptBody:
        """The prompt that it is, asked of ``model``. ``referred`` are the output items that it refers to.

        Instructions are the prompt's `system`. What a system or developer says in the input holds on in what follows,
        so it is told apart: it has parts. Raises Problem.
        """
        items = [InputMessage(role="user", content=self.input)] if isinstance(self.input, str) else self.input
        instructions, messages = said(items, referred)
        system = self.instructions or None
        if system is not None:
            system = "\n\n".join((system, *instructions))
        elif instructions:
            parts = [{"type": "text", "text": text} for text in ("\n\n".join(instructions),)]
            messages.insert(0, {"role": "system", "content": parts})
        given: dict[str, Any] = {
            "model": model,
            "system": system,
            "messages": messages,
            "tools": [one.model_dump(exclude={"type"}) for one in self.tools or ()],
            "response_format": self._response_format(),
            "metadata": {**(self.metadata or {}), **({} if self.user is None else {"user": self.user})},
            "window": {"auto": "slide", "disabled": "fail", None: None}[self.truncation],
            "parameters": {
                "temperature": self.temperature,
                "top_p": self.top_p,
                "max_tokens": self.max_output_tokens,
                "tool_choice": self._tool_choice(),
                "parallel_tool_calls": self.parallel_tool_calls,
                "reasoning_effort": None if self.reasoning is None else self.reasoning.effort,
                "logprobs": LOGPROBS in (self.include or ()) or self.top_logprobs is not None,
                "top_logprobs": self.top_logprobs,
            },
        }
        if conversation is not None:
            given["conversation_id"] = conversation
        if previous is not None:
            given["parent_message_id"] = previous
        try:
            return PromptBody.model_validate(given)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            raise invalid(_field(first["loc"]), first["msg"].removeprefix("Value error, ")) from None

    def _response_format(self) -> dict[str, Any] | None:
        match self.text and self.text.format:
            case JsonObject():
                return {}
            case JsonSchema() as shape:
                return {"name": shape.name, "json_schema": shape.schema_, "strict": shape.strict}
        return None

    def _tool_choice(self) -> Any:
        return {"name": self.tool_choice.name} if isinstance(self.tool_choice, NamedTool) else self.tool_choice


_FIELDS = {"messages": "input", "system": "instructions", "response_format": "text.format", "": "input"}
_PARAMETERS = {"max_tokens": "max_output_tokens", "reasoning_effort": "reasoning.effort"}


def _field(where: tuple[int | str, ...]) -> str:
    """Where in the request stands what is wrong there in the prompt."""
    path = [str(one) for one in where] or [""]
    if path[0] == "parameters":
        name = path[1] if len(path) > 1 else "top_logprobs"
        return _PARAMETERS.get(name, name)
    if path[0] in _FIELDS:
        # Items and messages are not one to one.
        return _FIELDS[path[0]]
    return ".".join(path)
