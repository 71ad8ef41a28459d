"""Browser sessions over HTTP: sign in, sign out, end another one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from backplane.security import secret_token
from backplane.security.principal import Principal
from backplane.web.authentication import CSRF_HEADER, cookie_name, requires
from backplane.web.problems import Problem, not_found, responses
from command_api.people_routes import Email, Password
from command_api.service import PeoplePorts
from command_api.sessions import Begun, NoSuchSession, Suspended, WrongPassword
from command_api.sign_in_attempts import TooManyAttempts

router = APIRouter(prefix="/v1", tags=["sessions"])

Anybody = Annotated[Principal, Depends(requires("session.own"))]

_ID = "01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d15"
_TENANT = "01990f6e-0000-7000-8000-000000000009"
_TIME = "2026-03-04T12:00:00Z"


class SignInBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    email: Email = Field(description="as they were invited with", examples=["ada@example.com"])
    password: Password = Field(description="as they set it", examples=["correct horse battery staple"])
    tenant_id: UUID | None = Field(
        default=None, description="which of their tenants, for who has the same password in several", examples=[_TENANT]
    )


class SessionBegun(BaseModel):
    id: UUID = Field(description="the session", examples=[_ID])
    csrf_token: str = Field(
        description=f"what changes anything sends it as `{CSRF_HEADER}`, beside the cookie", examples=["9a41…64 digits"]
    )
    expires_at: datetime = Field(description="when it ends, used or not", examples=[_TIME])


def let_in(request: Request, response: Response, begun: Begun) -> SessionBegun:
    """Give the browser its cookie with ``response``."""
    response.set_cookie(
        cookie_name(request),
        begun.token,
        max_age=int((begun.expires_at - datetime.now(UTC)).total_seconds()),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    response.headers["Cache-Control"] = "no-store"
    PeoplePorts.of(request).relay.wake()
    return SessionBegun(id=begun.session_id, csrf_token=secret_token.csrf_of(begun.token), expires_at=begun.expires_at)


@router.post(
    "/session",
    status_code=201,
    response_model=SessionBegun,
    summary="Sign in",
    openapi_extra={"security": []},
    responses=responses(400, 401, 413, 415, 422, 429, 503),
)
async def sign_in(request: Request, response: Response, body: SignInBody) -> SessionBegun:
    """Answers with a cookie. After some attempts in a row on an account, or from an address, each waits longer."""
    return let_in(request, response, await signed_in(request, body.email, body.password, body.tenant_id))


async def signed_in(request: Request, email: str, password: SecretStr, tenant_id: UUID | None) -> Begun:
    """As `Sessions.sign_in`. Raises Problem, DatabaseUnavailable."""
    address = request.client.host if request.client is not None else ""
    try:
        return await PeoplePorts.of(request).sessions.sign_in(email, password.get_secret_value(), tenant_id, address)
    except TooManyAttempts as many:
        detail = f"Too many attempts to sign in; the next one is looked at in {many.wait_s} s."
        headers = {"Retry-After": str(many.wait_s)}
        raise Problem(429, "too-many-attempts", "Too many attempts", detail, headers=headers) from None
    except WrongPassword:
        detail = (
            "The e-mail address or the password is wrong. Who has the same in several tenants names one as `tenant_id`."
        )
        raise Problem(401, "wrong-password", "Not signed in", detail) from None
    except Suspended:
        raise Problem(401, "suspended", "Suspended", "This user, or their tenant, is suspended.") from None


@router.post(
    "/session/from-key",
    status_code=201,
    response_model=SessionBegun,
    summary="Begin a session with an API key",
    responses=responses(401, 403, 409, 422, 503),
)
async def exchange_key(request: Request, response: Response, principal: Anybody) -> SessionBegun:
    """For a browser: the session may what the key may, and ends with it at the latest."""
    if principal.session_id is not None:
        detail = "A session is there already; send an API key to begin one."
        raise Problem(409, "no-key", "No API key", detail)
    return let_in(request, response, await PeoplePorts.of(request).sessions.exchange(principal))


@router.delete("/session", status_code=204, summary="Sign out", responses=responses(401, 403, 422, 503))
async def sign_out(request: Request, response: Response, principal: Anybody) -> None:
    """Ends the session that comes with the request, and takes its cookie back. A key ends no session this way."""
    ports = PeoplePorts.of(request)
    if principal.session_id is not None:
        await ports.sessions.end(principal, principal.session_id)
        response.delete_cookie(
            cookie_name(request), httponly=True, samesite="strict", secure=request.url.scheme == "https"
        )
        ports.relay.wake()


@router.delete(
    "/sessions/{session_id}",
    status_code=204,
    summary="End a session of one's own",
    responses=responses(401, 403, 404, 422, 503),
)
async def end_session(
    request: Request,
    principal: Anybody,
    session_id: Annotated[UUID, Path(description="the session, as the list of one's own names it")],
) -> None:
    """At once and on every process."""
    ports = PeoplePorts.of(request)
    try:
        await ports.sessions.end(principal, session_id)
    except NoSuchSession:
        raise not_found("session") from None
    ports.relay.wake()
