"""Users over HTTP: invite, accept, change, suspend, remove."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from backplane.security.password import LEAST_CHARACTERS, MOST_CHARACTERS
from backplane.security.principal import Principal
from backplane.web.authentication import requires
from backplane.web.problems import Problem, not_found, responses
from command_api.api_keys import MayNot, NoSuchUser
from command_api.message_body import Text
from command_api.people import Invitation, NoSuchInvitation, UserExists
from command_api.service import PeoplePorts
from event_schemas.control_plane import KeyRole

router = APIRouter(prefix="/v1", tags=["people"])

Manager = Annotated[Principal, Depends(requires("users.manage"))]
UserId = Annotated[UUID, Path(description="the user, as the 201 named it")]

_USER = "01990f6e-0000-7000-8000-000000000001"
_TENANT = "01990f6e-0000-7000-8000-000000000009"
_TIME = "2026-03-04T12:00:00Z"
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


def _an_address(given: str) -> str:
    if not _EMAIL.fullmatch(given):
        raise ValueError("is no e-mail address")
    return given


def _a_password(given: SecretStr) -> SecretStr:
    try:
        given.get_secret_value().encode()
    except UnicodeEncodeError:
        raise ValueError("holds half a character (a lone surrogate)") from None
    return given


Email = Annotated[Text, Field(max_length=254), AfterValidator(_an_address)]
NewPassword = Annotated[
    SecretStr, Field(min_length=LEAST_CHARACTERS, max_length=MOST_CHARACTERS), AfterValidator(_a_password)
]
Password = Annotated[SecretStr, Field(min_length=1, max_length=MOST_CHARACTERS), AfterValidator(_a_password)]


class UserBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Text = Field(min_length=1, max_length=200, description="unique in the tenant", examples=["Ada"])
    email: Email = Field(description="what they sign in with; unique in the tenant", examples=["ada@example.com"])
    role: KeyRole = Field("member", description="what they may do; no more than you may give", examples=["member"])


class UserInvited(BaseModel):
    user_id: UUID = Field(description="the user", examples=[_USER])
    token: str = Field(
        description="for the user: sets their password, once; shown this once", examples=["5f0c…64 digits…9a"]
    )
    expires_at: datetime = Field(description="until when it can be accepted", examples=[_TIME])

    @classmethod
    def of(cls, made: Invitation) -> UserInvited:
        return cls(user_id=made.user_id, token=made.token, expires_at=made.expires_at)


class UserChanges(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: KeyRole = Field(description="from now on; keys of theirs that say more do less", examples=["auditor"])


class AcceptanceBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    token: Text = Field(max_length=100, description="of the invitation", examples=["5f0c…64 digits…9a"])
    password: NewPassword = Field(description="any characters", examples=["correct horse battery staple"])


class Accepted(BaseModel):
    tenant_id: UUID = Field(description="the user's tenant", examples=[_TENANT])
    user_id: UUID = Field(description="the user, who may sign in now", examples=[_USER])


@contextmanager
def _answers() -> Iterator[None]:
    try:
        yield
    except NoSuchUser:
        raise not_found("user") from None
    except MayNot as less:
        raise Problem(403, "beyond-own", "More than you have", str(less)) from None
    except UserExists:
        raise Problem(
            409, "user-exists", "The user is there already", "A user of the tenant has that name or e-mail address."
        ) from None


@router.post(
    "/users",
    status_code=201,
    response_model=UserInvited,
    summary="Invite a user",
    responses=responses(400, 401, 403, 409, 413, 415, 422, 503),
)
async def invite_user(request: Request, principal: Manager, body: UserBody) -> UserInvited:
    """Send them the token; with it they set a password. Nothing is mailed by Parley."""
    ports = PeoplePorts.of(request)
    with _answers():
        made = await ports.people.invite(principal, body.name, body.email, body.role)
    ports.relay.wake()
    return UserInvited.of(made)


@router.post(
    "/users/{user_id}/invitation",
    status_code=201,
    response_model=UserInvited,
    summary="Invite a user again",
    responses=responses(401, 403, 404, 422, 503),
)
async def renew_invitation(request: Request, principal: Manager, user_id: UserId) -> UserInvited:
    """For who lost the token, let it expire, or forgot the password. Earlier tokens are void."""
    ports = PeoplePorts.of(request)
    with _answers():
        made = await ports.people.renew_invitation(principal, user_id)
    ports.relay.wake()
    return UserInvited.of(made)


@router.post(
    "/invitations/accept",
    response_model=Accepted,
    summary="Accept an invitation",
    openapi_extra={"security": []},
    responses=responses(400, 404, 413, 415, 422, 503),
)
async def accept_invitation(request: Request, body: AcceptanceBody) -> Accepted:
    """Sets the password that the user signs in with. A token works once; it needs no other credentials."""
    ports = PeoplePorts.of(request)
    try:
        tenant_id, user_id = await ports.people.accept(body.token, body.password.get_secret_value())
    except NoSuchInvitation:
        detail = "The invitation is unknown, was used or replaced, or has expired: ask for a new one."
        raise Problem(404, "no-such-invitation", "No such invitation", detail) from None
    ports.relay.wake()
    return Accepted(tenant_id=tenant_id, user_id=user_id)


@router.patch(
    "/users/{user_id}",
    status_code=204,
    summary="Change a user's role",
    responses=responses(400, 401, 403, 404, 413, 415, 422, 503),
)
async def change_user(request: Request, principal: Manager, user_id: UserId, body: UserChanges) -> None:
    """Holds at once, for their sessions and their keys too. Only an owner makes an owner, or changes one."""
    ports = PeoplePorts.of(request)
    with _answers():
        await ports.people.change_role(principal, user_id, body.role)
    ports.relay.wake()


@router.post(
    "/users/{user_id}/suspend",
    status_code=204,
    summary="Suspend a user",
    responses=responses(401, 403, 404, 422, 503),
)
async def suspend_user(request: Request, principal: Manager, user_id: UserId) -> None:
    """At once none of their keys and sessions works, on any process."""
    ports = PeoplePorts.of(request)
    with _answers():
        await ports.people.suspend(principal, user_id)
    ports.relay.wake()


@router.post(
    "/users/{user_id}/resume",
    status_code=204,
    summary="Resume a user",
    responses=responses(401, 403, 404, 422, 503),
)
async def resume_user(request: Request, principal: Manager, user_id: UserId) -> None:
    """Their keys and sessions work again, where they have not ended meanwhile."""
    ports = PeoplePorts.of(request)
    with _answers():
        await ports.people.resume(principal, user_id)
    ports.relay.wake()


@router.delete(
    "/users/{user_id}", status_code=204, summary="Remove a user", responses=responses(401, 403, 404, 422, 503)
)
async def remove_user(request: Request, principal: Manager, user_id: UserId) -> None:
    """Ends their keys and sessions, and forgets their e-mail address and password. What they wrote stays."""
    ports = PeoplePorts.of(request)
    with _answers():
        await ports.people.remove(principal, user_id)
    ports.relay.wake()
