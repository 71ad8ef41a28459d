"""`/platform/stats`: how much was asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from backplane.security.principal import Principal
from gateway.earlier.callers import holds_as_before
from gateway.earlier.personas.errors import responses
from query_api import usage
from query_api.sql import UsageFilter

router = APIRouter(prefix="/platform", tags=["earlier: personas"])

Reader = Annotated[Principal, Depends(holds_as_before("usage.read"))]

_SPAN = timedelta(days=30)
_TIME = "2026-03-01T12:00:00Z"


class ModelStats(BaseModel):
    model: str = Field(description="which one", examples=["gemma-3-270m"])
    generations: int = Field(description="answers that ended", examples=[12])
    input_tokens: int = Field(description="tokens of prompts", examples=[2400])
    output_tokens: int = Field(description="tokens of answers", examples=[9600])


class PlatformStats(BaseModel):
    since: datetime = Field(description="thirty days ago", examples=["2026-01-30T12:00:00Z"])
    until: datetime = Field(description="now", examples=[_TIME])
    generations: int = Field(description="answers that ended", examples=[12])
    input_tokens: int = Field(description="tokens of prompts", examples=[2400])
    output_tokens: int = Field(description="tokens of answers", examples=[9600])
    models: list[ModelStats] = Field(description="the same for each model")


@router.get("/stats", summary="Personas: how much was asked", responses=responses(401, 403, 503))
async def stats(request: Request, principal: Reader) -> PlatformStats:
    """Of the last thirty days: a member's own, for an admin all of the tenant's."""
    until = datetime.now(UTC)
    since = until - _SPAN
    chosen = UsageFilter(since, until, None, None, None, None)
    groups = await usage.groups(request.app.state.query, principal, chosen, "model")
    models = [ModelStats.model_validate({**group, "model": str(group["group"])}) for group in groups]
    return PlatformStats(
        since=since,
        until=until,
        generations=sum(one.generations for one in models),
        input_tokens=sum(one.input_tokens for one in models),
        output_tokens=sum(one.output_tokens for one in models),
        models=models,
    )
