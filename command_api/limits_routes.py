"""Endpoints of limits: what a tenant's admins give to its users, keys, models and personas, and what was used."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from backplane.ports.budget import BudgetUnavailable, Kind, Scope, nano_usd
from backplane.security.principal import Principal
from backplane.web.authentication import requires
from backplane.web.problems import not_found, responses, unavailable
from command_api.limit_answers import shown
from command_api.limits import Limited, NoSuchSubject, limits_of, set_limits
from command_api.ports import ports_of
from event_schemas.limits import Dimension, Limits

router = APIRouter(prefix="/v1", tags=["commands"])

Admin = Annotated[Principal, Depends(requires("limits.manage"))]

OfTenant = Literal["user", "key", "model", "persona"]

_USER = "01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d14"


class LimitsBody(Limits):
    model_config = ConfigDict(
        frozen=True, extra="forbid", json_schema_extra={"examples": [{"requests_per_minute": 60, "usd_per_day": "25"}]}
    )


class LimitUse(BaseModel):
    """One limit as it stands; money is text, in US dollars."""

    limit: int | str = Field(description="what is allowed", examples=["25"])
    used: int | str = Field(description="what was used, in the last minute, today or this month", examples=["3.2"])
    reserved: int | str = Field(
        description="what generations hold beyond that, which have not ended", examples=["0.15"]
    )


class SubjectLimits(BaseModel):
    dimension: Dimension = Field(description="what is limited", examples=["user"])
    subject: str = Field(description="which one: an id, or a name; empty for the tenant itself", examples=[_USER])
    limits: Limits = Field(description="all that are set")
    use: dict[Kind, LimitUse] = Field(
        description="each of them as it stands",
        examples=[{"usd_per_day": {"limit": "25", "used": "3.2", "reserved": "0.15"}}],
    )

    @classmethod
    def of(cls, limited: Limited) -> SubjectLimits:
        use = limited.use
        counts: dict[Kind, tuple[int, int]] = {
            "requests_per_minute": (use.requests, 0),
            "tokens_per_minute": (use.tokens, 0),
            "concurrent": (use.concurrent, 0),
            "usd_per_day": (use.day_nano_usd, use.reserved_nano_usd),
            "usd_per_month": (use.month_nano_usd, use.reserved_nano_usd),
        }
        stands: dict[Kind, LimitUse] = {}
        for kind, (used, reserved) in counts.items():
            limit: int | Decimal | None = getattr(limited.limits, kind)
            if limit is not None:
                most = nano_usd(limit) if isinstance(limit, Decimal) else limit
                stands[kind] = LimitUse(limit=shown(kind, most), used=shown(kind, used), reserved=shown(kind, reserved))
        scope = limited.scope
        return cls(dimension=scope.dimension, subject=scope.subject_id, limits=limited.limits, use=stands)


class AllLimits(BaseModel):
    items: list[SubjectLimits] = Field(description="everything of the tenant that has limits")


class LimitsAccepted(BaseModel):
    dimension: Dimension = Field(description="what is limited", examples=["user"])
    subject: str = Field(description="which one: an id, or a name", examples=[_USER])
    limits: Limits = Field(description="all that hold from now on")


@router.get(
    "/limits", response_model=AllLimits, summary="Limits, and what was used", responses=responses(401, 403, 422, 503)
)
async def list_limits(request: Request, principal: Admin) -> Any:
    """The tenant's own, which an operator gave, and those of its users, keys, models and personas."""
    ports = ports_of(request)
    try:
        found = await limits_of(ports.database, ports.budget, principal.tenant_id)
    except BudgetUnavailable as error:
        raise unavailable("limits", f"{str(error).capitalize()}.") from None
    return AllLimits(items=[SubjectLimits.of(one) for one in found])


@router.put(
    "/limits/{dimension}/{subject:path}",
    response_model=LimitsAccepted,
    summary="Set a subject's limits",
    responses=responses(400, 401, 403, 404, 413, 415, 422, 503),
)
async def put_limits(
    request: Request,
    principal: Admin,
    dimension: Annotated[OfTenant, Path(description="what is limited")],
    subject: Annotated[
        str, Path(min_length=1, max_length=200, description="a user's or key's id, or a model's name", examples=[_USER])
    ],
    body: LimitsBody,
) -> LimitsAccepted:
    """All of its limits: what is left out, has none. An empty object takes them away.

    They hold beside those of the tenant and of everybody; each prompt has to fit into all of them.
    """
    ports = ports_of(request)
    limits = Limits(**body.model_dump())
    scope = Scope(dimension, principal.tenant_id, subject)
    try:
        await set_limits(ports.database, ports.signals, scope, limits, actor=principal.actor)
    except NoSuchSubject as missing:
        raise not_found(missing.args[0]) from None
    ports.relay.wake()
    return LimitsAccepted(dimension=dimension, subject=subject, limits=limits)
