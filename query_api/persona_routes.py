"""The query API's endpoints of personas."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from backplane.security.principal import Principal
from backplane.web.authentication import requires
from backplane.web.problems import Problem, not_found, responses, unavailable
from event_schemas.personas import PersonaContent, Variable
from query_api import persona_export, personas
from query_api.freshness import NoSuch, ProjectionsLag
from query_api.personas import Change, PersonaVersion
from query_api.service import QueryPorts

router = APIRouter(prefix="/v1/personas", tags=["personas"])

Asker = Annotated[Principal, Depends(requires("conversations.use"))]
Manager = Annotated[Principal, Depends(requires("personas.manage"))]
Named = Annotated[str, Path(max_length=64, description="the persona's name", examples=["translator"])]

_PERSONA = "01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d16"
_TIME = "2026-03-01T12:00:00.123456Z"
_LARGEST = 2**31 - 1
_DEFINITION = {"description": "Translates what it is given.", "system": "You translate into {language}."}

Number = Annotated[int, Path(ge=1, le=_LARGEST, description="the version, counted from 1", examples=[2])]
YAML = "application/yaml"


class PersonaView(BaseModel):
    id: UUID = Field(description="the persona, whatever becomes of its name", examples=[_PERSONA])
    name: str = Field(description="what prompts name", examples=["translator"])
    version: int = Field(description="the newest one", examples=[2])
    description: str | None = Field(description="for people", examples=["Translates what it is given."])
    greeting: str | None = Field(
        description="template of the first message of a conversation", examples=["What shall I translate?"]
    )
    character: str | None = Field(description="whom it plays; null: nobody", examples=["Bruna"])
    variables: list[Variable] = Field(description="what a prompt gives")
    model: str | None = Field(description="which model; null: the default", examples=["gemma-3-270m"])
    saved_at: datetime = Field(description="when this version was saved", examples=[_TIME])

    @classmethod
    def of(cls, persona: PersonaVersion) -> PersonaView:
        content = persona.content or PersonaContent()
        return cls(
            id=persona.persona_id,
            name=persona.name,
            version=persona.version,
            description=content.description,
            greeting=content.greeting,
            character=content.character and content.character.name,
            variables=list(content.variables),
            model=content.model,
            saved_at=persona.saved_at,
        )


class PersonaList(BaseModel):
    personas: list[PersonaView] = Field(description="those that one may ask as, by name")


class VersionView(BaseModel):
    model_config = ConfigDict(extra="ignore")

    version: int = Field(description="counted from 1", examples=[2])
    saved_by: str = Field(description="who saved it", examples=["user:01990f6e-0000-7000-8000-000000000001"])
    saved_at: datetime = Field(description="when", examples=[_TIME])


class VersionList(BaseModel):
    versions: list[VersionView] = Field(description="the newest first")


class VersionWithDefinition(VersionView):
    name: str = Field(description="the persona's", examples=["translator"])
    definition: dict[str, Any] = Field(description="as it was saved, without defaults", examples=[_DEFINITION])


class ChangeView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    field: str = Field(description="a path; variables and tools by their names", examples=["parameters.temperature"])
    before: Any = Field(description="null: the default", examples=[0.2])
    after: Any = Field(description="null: the default", examples=[0.7])


class Comparison(BaseModel):
    before: int = Field(description="the version compared from", examples=[1])
    after: int = Field(description="the version compared to", examples=[2])
    changes: list[ChangeView] = Field(description="what differs, in the order of the fields' paths")

    @classmethod
    def of(cls, before: PersonaVersion, after: PersonaVersion, changes: list[Change]) -> Comparison:
        return cls(
            before=before.version,
            after=after.version,
            changes=[ChangeView.model_validate(one) for one in changes],
        )


def _ports(request: Request) -> QueryPorts:
    ports: QueryPorts = request.app.state.query
    return ports


@contextmanager
def _answers() -> Iterator[None]:
    try:
        yield
    except NoSuch as missing:
        raise not_found(missing.args[0]) from None
    except ProjectionsLag:
        raise unavailable(
            "projections", "The read models are behind; whether this is there cannot be said yet."
        ) from None


def _content(persona: PersonaVersion) -> PersonaContent:
    if persona.content is None:
        raise Problem(500, "unreadable", "Unreadable", "This version cannot be read; it was logged for the operator.")
    return persona.content


@router.get("", response_model=PersonaList, summary="Personas", responses=responses(401, 403, 422, 503))
async def list_personas(request: Request, principal: Asker) -> PersonaList:
    """Those that one may ask as; who manages them sees all."""
    found = await personas.all_of(_ports(request), principal)
    return PersonaList(personas=[PersonaView.of(one) for one in found])


@router.get(
    "/{persona}", response_model=PersonaView, summary="One persona", responses=responses(401, 403, 404, 422, 503)
)
async def get_persona(request: Request, principal: Asker, persona: Named) -> PersonaView:
    """What one needs to ask as it. All that it says, its versions tell who manages it."""
    with _answers():
        return PersonaView.of(await personas.one(_ports(request), principal, persona))


@router.get(
    "/{persona}/versions",
    response_model=VersionList,
    summary="Versions of a persona",
    responses=responses(401, 403, 404, 422, 503),
)
async def list_versions(request: Request, principal: Manager, persona: Named) -> VersionList:
    """Who saved each one, and when; the newest first."""
    with _answers():
        return VersionList.model_validate({"versions": await personas.versions(_ports(request), principal, persona)})


@router.get(
    "/{persona}/versions/{version}",
    response_model=VersionWithDefinition,
    summary="One version of a persona",
    responses=responses(401, 403, 404, 422, 503),
)
async def get_version(request: Request, principal: Manager, persona: Named, version: Number) -> VersionWithDefinition:
    """All that it says."""
    with _answers():
        found = await personas.one(_ports(request), principal, persona, version)
    return VersionWithDefinition(
        name=found.name,
        version=found.version,
        saved_by=found.saved_by,
        saved_at=found.saved_at,
        definition=_content(found).as_given(),
    )


@router.get(
    "/{persona}/compare",
    response_model=Comparison,
    summary="What differs between two versions",
    responses=responses(401, 403, 404, 422, 503),
)
async def compare_versions(
    request: Request,
    principal: Manager,
    persona: Named,
    before: Annotated[
        int | None, Query(alias="from", ge=1, le=_LARGEST, description="a version; none: the one before the other")
    ] = None,
    after: Annotated[int | None, Query(alias="to", ge=1, le=_LARGEST, description="another; none: the newest")] = None,
) -> Comparison:
    """Field by field."""
    with _answers():
        new = await personas.one(_ports(request), principal, persona, after)
        old = await personas.one(_ports(request), principal, persona, before or max(1, new.version - 1))
    return Comparison.of(old, new, personas.changes(_content(old), _content(new)))


@router.get(
    "/{persona}/export",
    response_class=Response,
    summary="A persona as one file",
    responses={
        200: {
            "description": "The whole definition, which imports as it is",
            "content": {
                "application/json": {
                    "schema": {"type": "object"},
                    "example": {"name": "translator", **_DEFINITION},
                },
                YAML: {
                    "example": "name: translator\nsystem: You translate into {language}.\n",
                },
            },
        },
        **responses(401, 403, 404, 422, 503),
    },
)
async def export_persona(
    request: Request,
    principal: Manager,
    persona: Named,
    format: Annotated[Literal["json", "yaml"], Query(description="of the file")] = "json",
    version: Annotated[int | None, Query(ge=1, le=_LARGEST, description="which one; none: the newest")] = None,
) -> Response:
    """`POST /v1/personas/import` takes it, and so does the folder `personas`."""
    with _answers():
        found = await personas.one(_ports(request), principal, persona, version)
    written = persona_export.as_json if format == "json" else persona_export.as_yaml
    headers = {"Content-Disposition": f'attachment; filename="{found.name}.{format}"'}
    media_type = "application/json" if format == "json" else YAML
    return Response(written(found.name, _content(found)), media_type=media_type, headers=headers)
