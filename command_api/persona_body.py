"""A persona's definition, as clients and files write it."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import ConfigDict, Field

from command_api.limits_routes import LimitsBody
from command_api.message_body import Body, ResponseFormatBody, Text, ToolBody
from command_api.prompt import ParametersBody
from command_api.source_body import MOST, SourceBody, wishes_of
from command_api.templates import MOST_CHARACTERS
from event_schemas.generation import Parameters, WindowPolicy
from event_schemas.limits import Limits
from event_schemas.personas import PERSONA_NAME, VARIABLE_NAME, Character, PersonaContent, Variable

_USER = "01990f6e-0000-7000-8000-000000000001"

PersonaName = Annotated[
    str,
    Field(
        pattern=PERSONA_NAME,
        description="unique in the tenant: small letters, digits, `_` and `-`",
        examples=["translator"],
    ),
]
LongText = Annotated[Text, Field(max_length=MOST_CHARACTERS)]
ShortText = Annotated[Text, Field(min_length=1, max_length=200)]


class VariableBody(Body):
    """What a template has a place for."""

    name: str = Field(pattern=VARIABLE_NAME, description="as templates name it", examples=["language"])
    type: Literal["string", "integer", "number", "boolean", "choice"] = Field(
        "string", description="what it may be", examples=["choice"]
    )
    choices: tuple[ShortText, ...] = Field(
        (), max_length=200, description="of a choice: what there is", examples=[["French", "German"]]
    )
    default: bool | int | float | LongText | None = Field(
        None, description="where a prompt leaves it out; null: it may not", examples=["French"]
    )
    description: LongText | None = Field(None, description="for people", examples=["into which it is translated"])
    required: bool = Field(
        False, description="each prompt has to give it, although it has a default for previews", examples=[False]
    )


class CharacterBody(Body):
    """Somebody, and the world they live in. Templates name these texts `character.name`, `character.world`, …"""

    name: LongText | None = Field(None, description="who it is", examples=["Bruna"])
    description: LongText | None = Field(None, description="what one sees", examples=["A broad innkeeper."])
    personality: LongText | None = Field(None, description="what they are like", examples=["Gruff and kind."])
    world: LongText | None = Field(None, description="where they live", examples=["A valley without winter."])
    scenario: LongText | None = Field(None, description="what goes on", examples=["Guests come in from the rain."])
    example_dialogue: LongText | None = Field(
        None, description="how they speak", examples=["Guest: A room? Bruna: Boots off first."]
    )


class DefinitionBody(Body):
    """What a persona is. Everything may be left out."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "description": "Translates what it is given.",
                    "system": "You translate into {language}. Answer with the translation only.",
                    "prompt": "Text:\n{input}",
                    "greeting": "What shall I translate?",
                    "variables": [{"name": "language", "type": "choice", "choices": ["French", "German"]}],
                    "parameters": {"temperature": 0.2},
                }
            ]
        }
    )

    description: LongText | None = Field(None, description="for people")
    language: Literal["placeholders", "jinja"] = Field(
        "placeholders", description="of its templates: `{name}` with `{{` and `}}` for braces, or a part of Jinja"
    )
    system: LongText | None = Field(None, description="template of the system prompt")
    prompt: LongText | None = Field(
        None, description="template of a user's message, in which `input` is what they wrote; null: that as it is"
    )
    greeting: LongText | None = Field(
        None, description="template of the first message of a conversation, which the persona says"
    )
    variables: tuple[VariableBody, ...] = Field((), max_length=100, description="what its templates name")
    model: Text | None = Field(None, max_length=200, description="which model; null: the default")
    fallbacks: tuple[ShortText, ...] = Field(
        (), max_length=16, description="models in place of those that its pool falls back to, the best first"
    )
    parameters: ParametersBody = Field(
        default_factory=lambda: ParametersBody.model_validate({}),
        description="how the model is sampled where a prompt says nothing else",
    )
    tools: tuple[ToolBody, ...] = Field((), max_length=128, description="what the model may ask its client to run")
    response_format: ResponseFormatBody | None = Field(None, description="answers have to be JSON; null: any text")
    repairs: int | None = Field(
        None, ge=0, le=5, description="most retries of an answer that does not fit its schema; null: 2", examples=[1]
    )
    scratchpad: bool = Field(False, description="what stands in `<scratchpad>` is kept out of answers")
    sources: tuple[SourceBody, ...] = Field(
        (), max_length=MOST, description="what is read before an answer is written", examples=[[]]
    )
    window: WindowPolicy | None = Field(
        None,
        description="what to do where a conversation does not fit the model; null: `slide`",
        examples=["summarise"],
    )
    character: CharacterBody | None = Field(None, description="who it plays; null: nobody")
    users: tuple[UUID, ...] | None = Field(
        None, max_length=1000, description="who may ask as it; null: everybody of the tenant", examples=[[_USER]]
    )
    limits: LimitsBody | None = Field(
        None, description="all of its limits, `{}` for none; null: those that are set stay", examples=[None]
    )

    def content(self) -> PersonaContent:
        """As commands carry it."""
        return PersonaContent(
            **self.model_dump(
                include={
                    *("description", "language", "system", "prompt", "greeting", "model", "fallbacks"),
                    *("repairs", "scratchpad", "window", "users"),
                }
            ),
            variables=tuple(Variable(**one.model_dump()) for one in self.variables),
            parameters=Parameters(**self.parameters.model_dump(exclude={"stop"})),
            stop=self.parameters.stop,
            tools=tuple(one.tool() for one in self.tools),
            response_format=None if self.response_format is None else self.response_format.response_format(),
            sources=wishes_of(self.sources),
            character=None if self.character is None else Character(**self.character.model_dump()),
            limits=None if self.limits is None else Limits(**self.limits.model_dump()),
        )
