"""Endpoints that change personas, and that try one out: what is rendered is rendered by what admits prompts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from backplane.security.principal import Principal
from backplane.web.authentication import requires
from backplane.web.problems import Problem, not_found, responses
from command_api import persona_file
from command_api.admission import Refused
from command_api.known_personas import NoSuchPersona
from command_api.message_body import Body, Text
from command_api.persona import InvalidPersona, Persona
from command_api.persona_body import DefinitionBody, PersonaName
from command_api.persona_file import UnusableFile
from command_api.persona_preview import Preview, preview
from command_api.personas import Changed, NoSuchUser, Saved
from command_api.ports import ports_of, settle
from event_schemas.personas import VARIABLE_NAME, PersonaContent, Value

router = APIRouter(prefix="/v1/personas", tags=["personas"])

Manager = Annotated[Principal, Depends(requires("personas.manage"))]
Named = Annotated[str, Path(max_length=64, description="the persona's name", examples=["translator"])]

_PERSONA = "01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d16"
_EXPECTED = "the newest version that you know, 0 for none; where it is another, nothing is saved; null: whichever"
_FILE = '{"name": "translator", "system": "You translate into French."}'

_LARGEST = 999_999_999
"""Version, as prompts can name it."""

Expected = Annotated[int | None, Field(ge=0, le=_LARGEST, description=_EXPECTED, examples=[None])]


class PersonaBody(Body):
    name: PersonaName
    definition: DefinitionBody = Field(description="what it is from now on")
    expected_version: Expected = None


class PersonaFileBody(Body):
    file: Text = Field(
        min_length=1,
        max_length=persona_file.MOST_CHARACTERS,
        description="all of a JSON or YAML file: as it was exported, or of one of the older forms",
        examples=[_FILE],
    )
    file_name: Text = Field(
        "persona", max_length=200, description="names it where the file does not", examples=["a.yaml"]
    )
    name: PersonaName | None = Field(None, description="goes before what the file says", examples=[None])
    expected_version: Expected = None


class RestoreBody(Body):
    version: int = Field(ge=1, le=_LARGEST, description="the one that is saved again", examples=[1])
    expected_version: Expected = None


class PersonaAccepted(BaseModel):
    persona_id: UUID = Field(description="names it for ever", examples=[_PERSONA])
    name: str = Field(description="its name", examples=["translator"])
    version: int = Field(description="what the name stands for from now on", examples=[2])
    is_new: bool = Field(description="false: the newest version says the same, so none was made", examples=[True])
    unused_variables: list[str] = Field(description="declared, and named by no template", examples=[[]])
    notices: list[str] = Field(description="what of an older file is not used, and why", examples=[[]])

    @classmethod
    def of(cls, saved: Saved, notices: tuple[str, ...] = ()) -> PersonaAccepted:
        return cls(
            **saved.ref.model_dump(),
            is_new=saved.event_id is not None,
            unused_variables=list(saved.unused),
            notices=list(notices),
        )


class PreviewBody(Body):
    version: int | None = Field(None, ge=1, le=_LARGEST, description="which one; null: the newest", examples=[None])
    variables: dict[Annotated[str, Field(pattern=VARIABLE_NAME)], bool | int | float | Text] = Field(
        default_factory=dict, max_length=100, description="others are filled with samples", examples=[{}]
    )
    input: Text | None = Field(None, description="what a user writes; null: a sample", examples=["Good morning."])


class DefinitionPreviewBody(Body):
    definition: DefinitionBody = Field(description="that of a persona that need not be saved")
    variables: dict[Annotated[str, Field(pattern=VARIABLE_NAME)], bool | int | float | Text] = Field(
        default_factory=dict, max_length=100, description="others are filled with samples", examples=[{}]
    )
    input: Text | None = Field(None, description="what a user writes; null: a sample", examples=["Good morning."])


class PreviewMessage(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    role: Literal["system", "assistant", "user"] = Field(description="who speaks", examples=["system"])
    content: str = Field(description="the template, filled", examples=["You translate into French."])


class PreviewView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    messages: list[PreviewMessage] = Field(description="what the first prompt of a conversation says to the model")
    samples: dict[str, Value] = Field(
        description="what was filled in for variables that were not given", examples=[{"language": "French"}]
    )
    model: str = Field(description="the model that would answer", examples=["gemma-3-270m"])
    tokens: int = Field(description="of all of it", examples=[24])
    counted_by: Literal["model", "estimate"] = Field(
        description="`model`: by its own vocabulary; `estimate`: that is not at hand", examples=["model"]
    )
    unused_variables: list[str] = Field(description="declared, and named by no template", examples=[[]])

    @classmethod
    def of(cls, shown: Preview, persona: Persona) -> PreviewView:
        return cls.model_validate(
            {
                "messages": [PreviewMessage.model_validate(message) for message in shown.messages],
                "unused_variables": list(persona.unused),
                **{name: getattr(shown, name) for name in ("samples", "model", "tokens", "counted_by")},
            }
        )


@contextmanager
def _answers() -> Iterator[None]:
    try:
        yield
    except Refused as refused:
        errors = [{"field": refused.field, "message": str(refused)}]
        raise Problem(422, refused.type, "The persona is refused", str(refused), errors=errors) from None
    except InvalidPersona as invalid:
        field = f"body.definition.{invalid.field}"
        errors = [{"field": field, "message": str(invalid)}]
        what = f"{invalid.field}: {invalid}."
        raise Problem(422, "invalid-persona", "The persona is refused", what, errors=errors) from None
    except UnusableFile as unusable:
        errors = [{"field": "body.file", "message": str(unusable)}]
        raise Problem(422, "unusable-file", "The file is refused", f"{unusable}.", errors=errors) from None
    except Changed as changed:
        detail = f"The newest version is {changed.version}, not the expected one. Look at it, then save again."
        raise Problem(409, "persona-changed", "The persona changed", detail, version=changed.version) from None
    except NoSuchPersona:
        raise not_found("persona") from None
    except NoSuchUser:
        raise not_found("user") from None


async def _accepted(
    request: Request, principal: Principal, saved: Saved, notices: tuple[str, ...] = ()
) -> PersonaAccepted:
    if saved.event_id is not None:
        await settle(request, principal, saved.event_id)
    return PersonaAccepted.of(saved, notices)


@router.post(
    "",
    status_code=201,
    response_model=PersonaAccepted,
    summary="Save a persona",
    responses=responses(400, 401, 403, 404, 409, 413, 415, 422, 503),
)
async def save_persona(request: Request, principal: Manager, body: PersonaBody) -> Any:
    """A new persona, or a new version of the one of that name. Conversations stay on the version they have."""
    with _answers():
        saved = await ports_of(request).personas.save(
            principal.tenant_id,
            body.name,
            body.definition.content(),
            actor=principal.actor,
            expected_version=body.expected_version,
        )
    return await _accepted(request, principal, saved)


@router.post(
    "/import",
    status_code=201,
    response_model=PersonaAccepted,
    summary="Save a persona from a file",
    responses=responses(400, 401, 403, 404, 409, 413, 415, 422, 503),
)
async def import_persona(request: Request, principal: Manager, body: PersonaFileBody) -> Any:
    """JSON or YAML, as `GET …/export` gives it. Prompts as `{config, system, user, template}` and personalities with an
    `imperative` are understood, too."""
    with _answers():
        # YAML is slow to read.
        parsed = await asyncio.to_thread(persona_file.parse, body.file, body.file_name)
        saved = await ports_of(request).personas.save(
            principal.tenant_id,
            body.name or parsed.name,
            parsed.definition.content(),
            actor=principal.actor,
            expected_version=body.expected_version,
        )
    return await _accepted(request, principal, saved, parsed.notices)


@router.post(
    "/preview",
    response_model=PreviewView,
    summary="Try a definition out",
    responses=responses(400, 401, 403, 413, 415, 422, 503),
)
async def preview_definition(request: Request, principal: Manager, body: DefinitionPreviewBody) -> PreviewView:
    """Renders its templates; saves nothing and asks no model."""
    with _answers():
        return await _preview(request, body.definition.content(), body.variables, body.input)


@router.post(
    "/{persona}/preview",
    response_model=PreviewView,
    summary="Try a persona out",
    responses=responses(400, 401, 403, 404, 413, 415, 422, 503),
)
async def preview_persona(request: Request, principal: Manager, persona: Named, body: PreviewBody) -> PreviewView:
    """Renders its templates; asks no model."""
    with _answers():
        content = await ports_of(request).personas.definition(principal.tenant_id, persona, body.version)
        return await _preview(request, content, body.variables, body.input)


@router.post(
    "/{persona}/restore",
    status_code=201,
    response_model=PersonaAccepted,
    summary="Save an earlier version again",
    responses=responses(400, 401, 403, 404, 409, 413, 415, 422, 503),
)
async def restore_persona(request: Request, principal: Manager, persona: Named, body: RestoreBody) -> Any:
    """What it says becomes a new version."""
    with _answers():
        saved = await ports_of(request).personas.restore(
            principal.tenant_id,
            persona,
            body.version,
            actor=principal.actor,
            expected_version=body.expected_version,
        )
    return await _accepted(request, principal, saved)


@router.delete(
    "/{persona}",
    status_code=204,
    summary="Remove a persona",
    responses=responses(401, 403, 404, 422, 503),
)
async def remove_persona(request: Request, principal: Manager, persona: Named) -> None:
    """Nobody asks as it any more, and nobody can read what its versions said. Conversations keep what was said."""
    with _answers():
        event_id = await ports_of(request).personas.remove(principal.tenant_id, persona, actor=principal.actor)
    await settle(request, principal, event_id)


async def _preview(
    request: Request, content: PersonaContent, variables: dict[str, Value], said: str | None
) -> PreviewView:
    settings = ports_of(request).settings

    def rendered() -> PreviewView:
        persona = Persona(content)
        persona.check()
        return PreviewView.of(preview(persona, settings, variables, said), persona)

    return await asyncio.to_thread(rendered)
