"""Tenants over HTTP, for the platform's admins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from backplane.security.principal import Principal
from backplane.web.authentication import requires
from backplane.web.problems import Problem, not_found, responses
from command_api import tenancy
from command_api.api_key_routes import ApiKeyCreated
from command_api.message_body import Text
from command_api.service import PeoplePorts
from event_schemas.envelope import PLATFORM
from event_schemas.share import Priority

router = APIRouter(prefix="/v1/tenants", tags=["platform"])

Platform = Annotated[Principal, Depends(requires("tenants.manage"))]
TenantId = Annotated[UUID, Path(description="the tenant, as the 201 named it")]

_TENANT = "01990f6e-0000-7000-8000-000000000009"


class TenantBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Text = Field(min_length=1, max_length=200, description="for people; unique among tenants", examples=["acme"])


class TenantCreated(BaseModel):
    id: UUID = Field(description="names it from now on", examples=[_TENANT])
    name: str = Field(description="for people", examples=["acme"])


class ShareBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    weight: int | None = Field(
        default=None, ge=1, le=100, description="its part beside others' weights; null: as it is", examples=[3]
    )
    priority: Priority | None = Field(
        default=None, description="a higher one goes first; null: as it is", examples=["normal"]
    )


class ShareSet(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    weight: int = Field(description="from now on", examples=[3])
    priority: Priority = Field(description="from now on", examples=["normal"])


@contextmanager
def _of_a_tenant(tenant_id: UUID) -> Iterator[None]:
    try:
        if tenant_id == PLATFORM:
            raise LookupError
        yield
    except LookupError:
        raise not_found("tenant") from None


@router.post(
    "",
    status_code=201,
    response_model=TenantCreated,
    summary="Make a tenant",
    responses=responses(400, 401, 403, 409, 413, 415, 422, 503),
)
async def create_tenant(request: Request, principal: Platform, body: TenantBody) -> TenantCreated:
    """Nobody is in it yet: issue its first owner key next."""
    ports = PeoplePorts.of(request)
    try:
        tenant_id = await tenancy.provision_tenant(ports.database, body.name, actor=principal.actor)
    except tenancy.NameTaken:
        raise Problem(409, "tenant-exists", "The tenant is there already", "Another tenant has that name.") from None
    ports.relay.wake()
    return TenantCreated(id=tenant_id, name=body.name)


@router.post(
    "/{tenant_id}/owner-key",
    status_code=201,
    response_model=ApiKeyCreated,
    summary="Issue a tenant's first owner key",
    responses=responses(401, 403, 404, 409, 422, 503),
)
async def issue_owner_key(request: Request, principal: Platform, tenant_id: TenantId) -> ApiKeyCreated:
    """For who will run the tenant. Where it has an owner already, only that one makes others."""
    ports = PeoplePorts.of(request)
    with _of_a_tenant(tenant_id):
        try:
            issued = await tenancy.first_owner_key(ports.database, ports.key_pepper, tenant_id, actor=principal.actor)
        except tenancy.HasOwner:
            detail = "The tenant has an owner's key or user; only an owner makes others."
            raise Problem(409, "tenant-has-owner", "The tenant has an owner", detail) from None
    ports.relay.wake()
    return ApiKeyCreated(id=issued.key_id, key=issued.key.reveal(), prefix=issued.key.public)


@router.patch(
    "/{tenant_id}/share",
    response_model=ShareSet,
    summary="Set a tenant's share",
    responses=responses(400, 401, 403, 404, 413, 415, 422, 503),
)
async def set_share(request: Request, principal: Platform, tenant_id: TenantId, body: ShareBody) -> ShareSet:
    """What it gets of a pool while more waits than can run."""
    ports = PeoplePorts.of(request)
    with _of_a_tenant(tenant_id):
        share = await tenancy.set_share(
            ports.database, tenant_id, weight=body.weight, priority=body.priority, actor=principal.actor
        )
    ports.relay.wake()
    return ShareSet.model_validate(share)


@router.post(
    "/{tenant_id}/suspend",
    status_code=204,
    summary="Suspend a tenant",
    responses=responses(401, 403, 404, 422, 503),
)
async def suspend_tenant(request: Request, principal: Platform, tenant_id: TenantId) -> None:
    """At once nobody of it is let in, on any process. What was accepted before still runs."""
    ports = PeoplePorts.of(request)
    with _of_a_tenant(tenant_id):
        await tenancy.suspend(ports.database, ports.signals, tenant_id, actor=principal.actor)
    ports.relay.wake()


@router.post(
    "/{tenant_id}/resume",
    status_code=204,
    summary="Resume a tenant",
    responses=responses(401, 403, 404, 422, 503),
)
async def resume_tenant(request: Request, principal: Platform, tenant_id: TenantId) -> None:
    """Its keys and sessions work again, where they have not ended meanwhile."""
    ports = PeoplePorts.of(request)
    with _of_a_tenant(tenant_id):
        await tenancy.resume(ports.database, ports.signals, tenant_id, actor=principal.actor)
    ports.relay.wake()
