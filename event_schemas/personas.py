"""Personas: named, versioned prompts with their settings. A definition is content, sealed under a key of its persona.

Removing a persona deletes that key, and with it what every version said, wherever copies stand.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from event_schemas.chat import ResponseFormat, Tool
from event_schemas.generation import Parameters
from event_schemas.limits import Limits
from event_schemas.payload import Content, Payload, Written
from event_schemas.sources import SourceWish, as_given

PERSONA_NAME = r"^[a-z0-9][a-z0-9_-]{0,63}$"
VARIABLE_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,63}$"

Value = bool | int | float | str
"""Of a variable. JSON tells them apart, and so does pydantic."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Variable(_Part):
    """What a template has a place for."""

    name: str = Field(pattern=VARIABLE_NAME, description="as templates name it", examples=["language"])
    type: Literal["string", "integer", "number", "boolean", "choice"] = Field(
        default="string", description="what it may be", examples=["choice"]
    )
    choices: tuple[str, ...] = Field(
        default=(), max_length=200, description="of a choice: what there is", examples=[["French", "German"]]
    )
    default: Value | None = Field(default=None, description="where a prompt leaves it out", examples=["French"])
    description: str | None = Field(default=None, description="for people", examples=["into which it is translated"])
    required: bool = Field(
        default=False, description="each prompt has to give it; without a default it is so anyway", examples=[False]
    )


class Character(_Part):
    """Somebody, and the world they live in. Templates name these texts `character.name`, `character.world`, …"""

    name: str | None = Field(default=None, description="who it is", examples=["Bruna"])
    description: str | None = Field(default=None, description="what one sees", examples=["A broad innkeeper."])
    personality: str | None = Field(default=None, description="what they are like", examples=["Gruff and kind."])
    world: str | None = Field(default=None, description="where they live", examples=["A valley without winter."])
    scenario: str | None = Field(default=None, description="what goes on", examples=["Guests come in from the rain."])
    example_dialogue: str | None = Field(
        default=None, description="how they speak", examples=["Guest: A room? Bruna: Boots off first."]
    )


class PersonaContent(Content):
    """A persona's whole definition, of one version."""

    description: str | None = Field(default=None, description="for people", examples=["Translates what it is given."])
    language: Literal["placeholders", "jinja"] = Field(
        default="placeholders", description="of its templates: `{name}`, or Jinja", examples=["placeholders"]
    )
    system: str | None = Field(
        default=None, description="template of the system prompt", examples=["Translate into {language}."]
    )
    prompt: str | None = Field(
        default=None,
        description="template of a user's message, in which `input` is what they wrote; null: that as it is",
        examples=["Text:\n{input}"],
    )
    greeting: str | None = Field(
        default=None,
        description="template of the first message of a conversation, which the persona says",
        examples=["What shall I translate?"],
    )
    variables: tuple[Variable, ...] = Field(default=(), max_length=100, description="what its templates name")
    model: str | None = Field(default=None, description="which model; null: the default", examples=["gemma-3-270m"])
    fallbacks: tuple[str, ...] = Field(
        default=(),
        max_length=16,
        description="models in place of those that its pool falls back to, the best first",
        examples=[[]],
    )
    parameters: Parameters = Field(
        default_factory=Parameters, description="how the model is sampled", examples=[{"temperature": 0.2}]
    )
    stop: tuple[str, ...] = Field(default=(), description="an answer ends before any of these", examples=[["\n\n"]])
    tools: tuple[Tool, ...] = Field(default=(), description="what the model may ask its client to run", examples=[[]])
    response_format: ResponseFormat | None = Field(
        default=None, description="answers have to be JSON; null: any text", examples=[None]
    )
    repairs: int | None = Field(
        default=None, ge=0, description="most retries of an answer that does not fit its schema; null: 2", examples=[1]
    )
    scratchpad: bool = Field(
        default=False, description="what stands in <scratchpad> is kept out of answers", examples=[False]
    )
    sources: tuple[SourceWish, ...] = Field(
        default=(), description="what is read before an answer is written", examples=[[]]
    )
    window: Literal["fail", "slide", "summarise"] | None = Field(
        default=None,
        description="what to do where a conversation does not fit the model; null: `slide`",
        examples=["summarise"],
    )
    character: Character | None = Field(default=None, description="who it plays; null: nobody")
    users: tuple[UUID, ...] | None = Field(
        default=None, description="who may ask as it; null: everybody of the tenant", examples=[None]
    )
    limits: Limits | None = Field(
        default=None, description="all of its limits; null: those that are set stay", examples=[None]
    )

    def as_given(self) -> dict[str, Any]:
        """As clients and files write it: plain JSON, without what is the default."""
        given = self.model_dump(mode="json", exclude_defaults=True, exclude={"stop"})
        if self.stop:
            given["parameters"] = given.get("parameters", {}) | {"stop": list(self.stop)}
        if self.sources:
            given["sources"] = [as_given(wish) for wish in self.sources]
        if self.limits is not None:
            given["limits"] = self.limits.model_dump(mode="json", exclude_none=True)
        return given


class _AboutPersona(Payload):
    persona_id: UUID
    name: str = Field(pattern=PERSONA_NAME, description="unique in its tenant")

    def subject(self) -> str:
        return f"persona:{self.persona_id}"


class SavePersona(_AboutPersona):
    wire_name: ClassVar[str] = "persona.save.v1"

    version: int = Field(ge=1, description="counted from 1")
    content: Written = Field(description="a PersonaContent")


class PersonaSaved(_AboutPersona):
    """From now on this version is what its name stands for. Conversations stay on the version they began with."""

    wire_name: ClassVar[str] = "persona.saved.v1"

    version: int = Field(ge=1, description="counted from 1")
    content: Written = Field(description="a PersonaContent")


class RemovePersona(_AboutPersona):
    wire_name: ClassVar[str] = "persona.remove.v1"


class PersonaRemoved(_AboutPersona):
    """Nobody asks as it any more, and what its versions said can be read by nobody."""

    wire_name: ClassVar[str] = "persona.removed.v1"
