"""Who one is, and the lists of users, API keys, sessions and tenants."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from backplane.security import secret_token
from backplane.security.permissions import PERMISSIONS, Permission
from backplane.security.principal import Principal
from backplane.web.authentication import CSRF_HEADER, requires, session_token
from backplane.web.problems import responses
from event_schemas.control_plane import KeyRole
from event_schemas.people import SignInMethod
from event_schemas.share import Priority
from query_api import people_sql
from query_api.service import QueryPorts

router = APIRouter(prefix="/v1")

Anybody = Annotated[Principal, Depends(requires("session.own"))]
Keyholder = Annotated[Principal, Depends(requires("keys.own"))]
Manager = Annotated[Principal, Depends(requires("users.manage"))]
Platform = Annotated[Principal, Depends(requires("tenants.manage"))]

_TENANT = "01990f6e-0000-7000-8000-000000000009"
_USER = "01990f6e-0000-7000-8000-000000000001"
_KEY = "01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d14"
_SESSION = "01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d15"
_TIME = "2026-03-01T12:00:00.123456Z"
_LATER = "2026-06-01T12:00:00Z"

Models = Annotated[
    list[str] | None, Field(description="the models that it may ask; null: all", examples=[["gemma-3-270m"]])
]
Personas = Annotated[
    list[str] | None, Field(description="the personas that it may ask as; null: all", examples=[["clerk"]])
]


class CallerView(BaseModel):
    tenant_id: UUID = Field(description="whose the caller is", examples=[_TENANT])
    user_id: UUID | None = Field(description="the user; null: a key without one", examples=[_USER])
    role: KeyRole = Field(description="what it comes to", examples=["member"])
    permissions: list[Permission] = Field(description="what the role may", examples=[["conversations.use"]])
    models: Models
    personas: Personas
    session_id: UUID | None = Field(description="null: it came with an API key", examples=[_SESSION])
    csrf_token: str | None = Field(
        description=f"of a session: what changes anything sends it as `{CSRF_HEADER}`", examples=["9a41…64 digits"]
    )


class UserView(BaseModel):
    id: UUID = Field(description="the user", examples=[_USER])
    name: str = Field(description="unique in the tenant", examples=["Ada"])
    email: str | None = Field(description="what they sign in with; null: keys only", examples=["ada@example.com"])
    role: KeyRole = Field(description="what they may do", examples=["member"])
    created_at: datetime = Field(description="when they were invited", examples=[_TIME])
    joined_at: datetime | None = Field(description="when they first came in; null: not yet", examples=[_TIME])
    suspended_at: datetime | None = Field(
        description="since when they may not come in; null: they may", examples=[None]
    )


class UserList(BaseModel):
    users: list[UserView] = Field(description="all that are not removed, oldest first")


class ApiKeyView(BaseModel):
    id: UUID = Field(description="the key", examples=[_KEY])
    name: str = Field(description="a label for people", examples=["nightly job"])
    role: KeyRole = Field(description="what it may do, where its user may, too", examples=["member"])
    user_id: UUID | None = Field(description="whose it is; null: nobody's", examples=[_USER])
    prefix: str = Field(description="its public part", examples=["parley_0123456789abcdef"])
    models: Models
    personas: Personas
    created_at: datetime = Field(description="when it was issued", examples=[_TIME])
    expires_at: datetime | None = Field(description="when it ends; null: never", examples=[_LATER])
    former_ends_at: datetime | None = Field(
        description="until when the secret before the last rotation works; null: there is none", examples=[_LATER]
    )


class ApiKeyList(BaseModel):
    api_keys: list[ApiKeyView] = Field(description="all that have not ended, oldest first")


class SessionView(BaseModel):
    id: UUID = Field(description="the session", examples=[_SESSION])
    method: SignInMethod = Field(description="how it was begun", examples=["password"])
    created_at: datetime = Field(description="when it was begun", examples=[_TIME])
    seen_at: datetime = Field(description="when it was last used, to the minute", examples=[_TIME])
    expires_at: datetime = Field(description="when it ends, used or not", examples=[_LATER])
    current: bool = Field(description="whether this request came with it", examples=[True])


class SessionList(BaseModel):
    sessions: list[SessionView] = Field(description="one's own that have not ended, newest first")


class TenantView(BaseModel):
    id: UUID = Field(description="the tenant", examples=[_TENANT])
    name: str = Field(description="for people", examples=["acme"])
    weight: int = Field(description="its part beside others' weights", examples=[1])
    priority: Priority = Field(description="a higher one goes first", examples=["normal"])
    created_at: datetime = Field(description="when it was made", examples=[_TIME])
    suspended_at: datetime | None = Field(
        description="since when nobody of it may come in; null: they may", examples=[None]
    )


class TenantList(BaseModel):
    tenants: list[TenantView] = Field(description="all, oldest first")


def _ports(request: Request) -> QueryPorts:
    ports: QueryPorts = request.app.state.query
    return ports


@router.get(
    "/session",
    tags=["sessions"],
    response_model=CallerView,
    summary="Who one is",
    responses=responses(401, 403, 422, 503),
)
async def who_am_i(request: Request, response: Response, principal: Anybody) -> CallerView:
    """With an API key as with a session."""
    token = session_token(request)
    response.headers["Cache-Control"] = "no-store"
    return CallerView(
        tenant_id=principal.tenant_id,
        user_id=principal.user_id,
        role=principal.role,
        permissions=sorted(PERMISSIONS[principal.role]),
        models=None if principal.models is None else sorted(principal.models),
        personas=None if principal.personas is None else sorted(principal.personas),
        session_id=principal.session_id,
        csrf_token=None if token is None else secret_token.csrf_of(token),
    )


@router.get(
    "/sessions",
    tags=["sessions"],
    response_model=SessionList,
    summary="One's own sessions",
    responses=responses(401, 403, 422, 503),
)
async def list_sessions(request: Request, principal: Anybody) -> SessionList:
    """Of the user, whatever they signed in with; of a key without one, those that it began."""
    ports = _ports(request)
    async with ports.database.tenant(principal.tenant_id) as session:
        rows = await people_sql.sessions(session, principal, ports.session_idle_s)
    return SessionList.model_validate({"sessions": rows})


@router.get(
    "/users", tags=["people"], response_model=UserList, summary="Users", responses=responses(401, 403, 422, 503)
)
async def list_users(request: Request, principal: Manager) -> UserList:
    """Of the tenant."""
    async with _ports(request).database.tenant(principal.tenant_id) as session:
        return UserList.model_validate({"users": await people_sql.users(session)})


@router.get(
    "/api-keys",
    tags=["people"],
    response_model=ApiKeyList,
    summary="API keys",
    responses=responses(401, 403, 422, 503),
)
async def list_api_keys(request: Request, principal: Keyholder) -> ApiKeyList:
    """A member sees those of its own user, an admin those of the tenant. What the keys are is shown to nobody."""
    async with _ports(request).database.tenant(principal.tenant_id) as session:
        return ApiKeyList.model_validate({"api_keys": await people_sql.api_keys(session, principal)})


@router.get(
    "/tenants",
    tags=["platform"],
    response_model=TenantList,
    summary="Tenants",
    responses=responses(401, 403, 422, 503),
)
async def list_tenants(request: Request, principal: Platform) -> TenantList:
    """All of them, without the platform's own."""
    async with _ports(request).database.tenant(principal.tenant_id) as session:
        return TenantList.model_validate({"tenants": await people_sql.tenants(session)})
