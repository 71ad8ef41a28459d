"""`/v1/auth/signup`, `/login`, `/me`: users, who sign in with an address and a password."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from backplane.security.authenticator import Authenticator, NotAccepted
from backplane.security.principal import Principal
from command_api.message_body import Text
from command_api.people_routes import Email, NewPassword, Password
from command_api.service import PeoplePorts
from command_api.session_routes import signed_in
from gateway.earlier.details import responses
from gateway.earlier.joining import joined, signs_up
from gateway.earlier.sessions.callers import Caller
from gateway.ports import ports_of
from query_api import people_sql

router = APIRouter(prefix="/v1/auth", tags=["earlier: sessions"])

_USER = "01990f6e-0000-7000-8000-000000000001"


class SignUpRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    user_name: Text = Field(
        "",
        max_length=200,
        description="unique in the tenant; empty: they are shown their address, and others the user's id",
        examples=["Ada"],
    )
    email: Email = Field(description="what they sign in with", examples=["ada@example.com"])
    password: NewPassword = Field(description="what they sign in with", examples=["correct horse battery staple"])


class AccountUser(BaseModel):
    user_id: str = Field(description="the user; the key, where it is nobody's", examples=[_USER])
    user_name: str = Field(description="unique in the tenant; empty: there is none", examples=["Ada"])
    email: str = Field(description="what they sign in with; empty: keys only", examples=["ada@example.com"])


class AccessToken(BaseModel):
    access_token: str = Field(
        description="for `Authorization: Bearer …` at this door; ends as a browser's session does",
        examples=["5f0c…64 digits…9a"],
    )
    token_type: str = Field("bearer", description="always `bearer`", examples=["bearer"])


@router.post(
    "/signup",
    summary="Sessions: sign up",
    responses=responses(400, 401, 403, 409, 413, 415, 422, 429, 503),
)
async def sign_up(
    request: Request, principal: Annotated[Principal, Depends(signs_up("users.manage"))], body: SignUpRequest
) -> AccountUser:
    """Makes a user of the tenant whose admin's key the request has, or the settings do. The password is kept as that of
    who accepts an invitation."""
    name = None if body.user_name.casefold() in ("", body.email.casefold()) else body.user_name
    invited = await joined(request, principal, name, body.email, "This name or address has an account already")
    await PeoplePorts.of(request).people.accept(invited.token, body.password.get_secret_value())
    return AccountUser(user_id=str(invited.user_id), user_name=name or body.email, email=body.email)


@router.post(
    "/login",
    summary="Sessions: sign in",
    openapi_extra={"security": []},
    responses=responses(400, 401, 403, 413, 422, 429, 503),
)
async def log_in(
    request: Request,
    response: Response,
    username: Annotated[Email, Form(description="the e-mail address", examples=["ada@example.com"])],
    password: Annotated[Password, Form(description="as it was set", examples=["correct horse battery staple"])],
) -> AccessToken:
    """After some attempts in a row on an account, or from an address, each waits longer. Where the settings have an
    admin's key to sign up with, this is for users of its tenant."""
    begun = await signed_in(request, username, password, await _tenant_joined(request))
    response.headers["Cache-Control"] = "no-store"
    PeoplePorts.of(request).relay.wake()
    return AccessToken(access_token=begun.token)


@router.get("/me", summary="Sessions: who one is", responses=responses(401, 403, 503))
@router.post("/me", summary="Sessions: who one is, asked by POST", responses=responses(401, 403, 503))
async def who_am_i(request: Request, principal: Caller) -> AccountUser:
    """With an API key as with what signing in gave."""
    if principal.user_id is None:
        return AccountUser(user_id=str(principal.key_id), user_name="", email="")
    async with request.app.state.query.database.tenant(principal.tenant_id) as session:
        user = await people_sql.user(session, principal.user_id)
    user_id, email = str(principal.user_id), user["email"] or ""
    return AccountUser(user_id=user_id, user_name=email if user["name"] == user_id else user["name"], email=email)


async def _tenant_joined(request: Request) -> UUID | None:
    """Whose users sign up without a key; None: nobody does. Raises DatabaseUnavailable."""
    admin_key = ports_of(request).doors.admin_key
    if admin_key is None:
        return None
    authenticator: Authenticator = request.app.state.authenticator
    try:
        return (await authenticator.principal(admin_key.get_secret_value())).tenant_id
    except NotAccepted:
        return None
