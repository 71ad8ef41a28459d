"""A persona as prompts are asked as it: from what a client sent to the prompt that it stands for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from command_api import templates, variables
from command_api.admission import Refused
from command_api.message_body import ImagePartBody, MessageBody, ResponseFormatBody, TextPartBody, ToolBody
from command_api.prompt import ParametersBody, PromptBody
from command_api.source_body import bodies_of
from command_api.templates import Field, Names, Template, TemplateError, Values
from command_api.variables import MissingVariable, VariableError
from event_schemas.payload import PersonaRef
from event_schemas.personas import Character, PersonaContent, Value

_INPUT = "input"
_FIELDS: tuple[Field, ...] = ("system", "prompt", "greeting")
_CARRIED = ("repairs", "scratchpad", "window")

MOST_BYTES = 256 * 1024
"""Of a definition, as JSON."""


class InvalidPersona(ValueError):
    """A definition that nobody could ask as. ``field`` is a path in it; the message carries no text of it but names."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Persona:
    """One version, its templates parsed."""

    def __init__(self, content: PersonaContent) -> None:
        """Raises InvalidPersona."""
        self.content = content
        try:
            variables.check(content.variables)
        except VariableError as error:
            raise InvalidPersona(f"variables.{error.name}", str(error)) from None
        declared: Names = {one.name: None for one in content.variables}
        if content.character is not None:
            declared = {**declared, "character": frozenset(_texts(content.character))}
        self._templates: dict[Field, Template] = {}
        for field in _FIELDS:
            text: str | None = getattr(content, field)
            names = {**declared, _INPUT: None} if field == "prompt" else declared
            if text is not None:
                try:
                    self._templates[field] = templates.parse(text, content.language, field, names)
                except TemplateError as error:
                    raise InvalidPersona(field, str(error)) from None

    def check(self) -> None:
        """What costs too much to look at each time it is asked as. Raises InvalidPersona."""
        size = len(self.content.model_dump_json().encode())
        if size > MOST_BYTES:
            raise InvalidPersona("definition", f"it has {size} bytes, the limit is {MOST_BYTES}")
        samples = {one.name: variables.sample(one) for one in self.content.variables}
        for field in self._templates:
            try:
                self.rendered(field, samples, said="[input]")
            except TemplateError as error:
                raise InvalidPersona(field, str(error)) from None
        if self.content.parameters.tool_choice not in (None, "none") and not self.content.tools:
            raise InvalidPersona("parameters.tool_choice", "`tool_choice` needs `tools`")

    @property
    def unused(self) -> tuple[str, ...]:
        """Variables that no template names."""
        named = self.needed(_FIELDS)
        return tuple(one.name for one in self.content.variables if one.name not in named)

    @property
    def takes_input(self) -> bool:
        """Whether there is a place for what the user writes."""
        return "prompt" not in self._templates or _INPUT in self.needed(("prompt",))

    def needed(self, fields: Iterable[Field]) -> set[str]:
        """What these templates name."""
        parsed = [self._templates[field] for field in fields if field in self._templates]
        return {place.name for template in parsed for place in template.places}

    def rendered(self, field: Field, values: Mapping[str, Value], *, said: str = "") -> str | None:
        """None where there is no such template. Raises TemplateError."""
        template = self._templates.get(field)
        if template is None:
            return None
        character = self.content.character
        everything: Values = {**values, _INPUT: said, "character": {} if character is None else _texts(character)}
        return template.render(everything)

    def prompt(self, ref: PersonaRef, body: PromptBody, *, begins: bool, anew: bool) -> PromptBody:
        """What ``body`` stands for. ``begins``: nothing was said before. ``anew``: nothing that stands of this version.

        Raises Refused.
        """
        if body.system is not None or any(message.role == "system" for message in body.messages):
            field = "body.messages" if body.system is None else "body.system"
            raise Refused("system-of-persona", field, f"The persona {_named(ref)} says what its system prompt is.")
        again = body.input is None and not body.messages and body.parent_message_id is not None
        fields: list[Field] = [
            *(("system",) if anew or body.variables else ()),
            *(("greeting",) if begins and all(one.role != "assistant" for one in body.messages) else ()),
            *(() if again or (body.messages and body.messages[-1].role == "tool") else ("prompt",)),
        ]
        given = self._given(ref, body, fields)
        try:
            said = {field: self.rendered(field, given, said=_said(body)) for field in fields}
        except TemplateError as error:
            raise Refused("unfit-for-template", "body.variables", f"The persona {_named(ref)}: {error}.") from None
        update: dict[str, Any] = self._settings(ref, body)
        if "system" in said:
            # An empty one takes back what stood before.
            update["system"] = said["system"] or (None if begins else "")
        if not again:
            update |= {"input": None, "messages": self._messages(ref, body, said.get("prompt"), said.get("greeting"))}
        return body.model_copy(update=update)

    def _given(self, ref: PersonaRef, body: PromptBody, fields: Iterable[Field]) -> dict[str, Value]:
        try:
            return variables.values(self.content.variables, body.variables, self.needed(fields))
        except MissingVariable as missing:
            place = self._place(missing.name, fields)
            what = f"The persona {_named(ref)}: {missing}; it stands in {place}."
            raise Refused("missing-variable", f"body.variables.{missing.name}", what) from None
        except VariableError as error:
            known = {one.name for one in self.content.variables}
            kind = "invalid-variable" if error.name in known else "unknown-variable"
            raise Refused(kind, f"body.variables.{error.name}", f"The persona {_named(ref)}: {error}.") from None

    def _place(self, name: str, fields: Iterable[Field]) -> str:
        for field in fields:
            for place in self._templates[field].places if field in self._templates else ():
                if place.name == name:
                    column = "" if place.column is None else f", column {place.column}"
                    return f"{field}, line {place.line}{column}"
        raise AssertionError(f"{name} is needed by a template")

    def _messages(
        self, ref: PersonaRef, body: PromptBody, prompt: str | None, greeting: str | None
    ) -> tuple[MessageBody, ...]:
        messages = list(body.messages)
        if body.input is not None:
            messages = [MessageBody(role="user", content=body.input, tool_call_id=None)]
        if prompt is not None:
            if not prompt:
                raise Refused(
                    "unfit-for-template", "body.variables", f"The prompt of {_named(ref)} renders to nothing."
                )
            if not messages and self.takes_input:
                raise Refused("missing-input", "body.input", f"The persona {_named(ref)} has a place for an `input`.")
            if messages and messages[-1].role == "user":
                if not self.takes_input:
                    field = "body.messages" if body.input is None else "body.input"
                    raise Refused("no-place-for-input", field, f"The persona {_named(ref)} takes variables, no input.")
                images = [one for one in messages.pop().content if isinstance(one, ImagePartBody)]
                parts = (TextPartBody(type="text", text=prompt), *images)
                messages.append(MessageBody(role="user", content=parts if images else prompt, tool_call_id=None))
            elif not messages:
                messages = [MessageBody(role="user", content=prompt, tool_call_id=None)]
        if not messages:
            raise Refused("missing-input", "body.input", "Give `input` or `messages`.")
        if greeting:
            messages.insert(0, MessageBody(role="assistant", content=greeting, tool_call_id=None))
        return tuple(messages)

    def _settings(self, ref: PersonaRef, body: PromptBody) -> dict[str, Any]:
        """What the prompt does not say itself."""
        content, given = self.content, body.model_fields_set
        tools = body.tools or tuple(ToolBody(**tool.model_dump()) for tool in content.tools)
        update: dict[str, Any] = {
            "model": body.model or content.model,
            "tools": tools,
            "parameters": self._parameters(body.parameters.model_dump(include=body.parameters.model_fields_set)),
        }
        if update["parameters"].tool_choice not in (None, "none") and not tools:
            raise Refused("invalid-request", "body.parameters.tool_choice", "`tool_choice` needs `tools`.")
        if "response_format" not in given and content.response_format is not None:
            update["response_format"] = ResponseFormatBody(**content.response_format.model_dump())
        if "sources" not in given:
            update["sources"] = bodies_of(content.sources)
        return update | {name: getattr(content, name) for name in _CARRIED if name not in given}

    def _parameters(self, given: Mapping[str, Any]) -> ParametersBody:
        own = self.content.parameters.model_dump(mode="json") | {"stop": self.content.stop}
        try:
            return ParametersBody.model_validate({**own, **given})
        except ValidationError as error:
            field = ".".join(map(str, error.errors()[0]["loc"])) or "logprobs"
            message = f"with those of the persona, the parameters do not fit: {field}"
            raise Refused("invalid-request", f"body.parameters.{field}", message) from None


def _texts(character: Character) -> dict[str, str]:
    """What is said of a character."""
    return character.model_dump(exclude_none=True)


def _said(body: PromptBody) -> str:
    if body.input is not None:
        return body.input
    return body.messages[-1].message().text if body.messages else ""


def _named(ref: PersonaRef) -> str:
    return f"{ref.name}@{ref.version}"
