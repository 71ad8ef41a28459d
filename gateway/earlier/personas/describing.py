"""`/describe/<persona>`: what clients show of one."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from gateway.earlier.personas import prompts
from gateway.earlier.personas.errors import responses
from gateway.earlier.personas.prompts import Caller, Persona
from gateway.ports import ports_of

router = APIRouter(prefix="/describe", tags=["earlier: personas"])


class Description(BaseModel):
    name: str = Field(description="the persona", examples=["translator"])
    description: str | None = Field(description="for people", examples=["Translates what it is given."])
    model: str | None = Field(description="which model answers; null: there is none", examples=["gemma-3-270m"])
    hf_repo: str | None = Field(description="the model, as earlier clients look for it", examples=["gemma-3-270m"])
    context_window: int | None = Field(
        description="tokens of prompt and answer together; null: the model's own", examples=[4096]
    )


@router.get("/{persona}", summary="Personas: what one is", responses=responses(401, 403, 404, 503))
async def describe(request: Request, principal: Caller, persona: Persona) -> Description:
    """What it says to the model is not told."""
    found = await prompts.known(request, principal, persona)
    settings = ports_of(request).settings
    content = found.content
    model = settings.default_model if content is None or content.model is None else content.model
    pool = None if model is None else settings.pool_of(model)
    return Description(
        name=found.name,
        description=None if content is None else content.description,
        model=model,
        hf_repo=model,
        context_window=None if pool is None else settings.pools[pool].context_window,
    )
