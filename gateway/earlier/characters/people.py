"""`POST /signup/`: a user with a key."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form, Request
from pydantic import BaseModel, Field
from starlette.requests import HTTPConnection

from backplane.ports.budget import Scope
from backplane.security.principal import Principal
from backplane.web.problems import Problem
from command_api.api_keys import MayNot, NoSuchUser, Wanted
from command_api.limits import set_limits
from command_api.message_body import Text
from command_api.people import UserExists
from command_api.service import PeoplePorts
from event_schemas.limits import Limits
from gateway.earlier.callers import holds_as_before
from gateway.earlier.details import responses
from gateway.ports import ports_of

router = APIRouter(tags=["earlier: characters"])

_FORM = "application/x-www-form-urlencoded"


class signs_up(holds_as_before):
    """The holder of the request's key, or else of the key that the settings have for who comes without one."""

    def given(self, request: HTTPConnection) -> str | None:
        admin_key = ports_of(request).doors.admin_key
        return super().given(request) or (None if admin_key is None else admin_key.get_secret_value())


class SignedUp(BaseModel):
    message: str = Field(description="that it went well", examples=["User created successfully."])
    api_key: str = Field(description="the user's key, shown this once", examples=["parley_0123456789abcdef_…"])


@router.post(
    "/signup/",
    summary="Characters: sign up",
    responses=responses(400, 401, 403, 409, 413, 422, 429, 503),
)
async def sign_up(
    request: Request,
    principal: Annotated[Principal, Depends(signs_up("users.manage"))],
    username: Annotated[
        Text, Form(min_length=1, max_length=60, description="unique in the tenant", examples=["John_Smith"])
    ],
    password: Annotated[
        Text,
        Form(
            min_length=1,
            max_length=1024,
            description="not kept: here the key is all that a user has",
            examples=["Pasw0rd"],
        ),
    ],
) -> SignedUp:
    """Makes a user of the tenant whose admin's key the request has, or the settings do, and a key of theirs."""
    ports = PeoplePorts.of(request)
    # Nobody is written to. A user has to have an address, and this top-level domain has none (RFC 2606).
    address = f"{quote(username, safe='')}@signup.invalid"
    try:
        invited = await ports.people.invite(principal, username, address, "member")
        wanted = Wanted("signed up", "member", invited.user_id, None, None, None)
        issued = await ports.api_keys.issue(principal, wanted)
        limit = ports_of(request).doors.rate_limit
        if limit is not None:
            scope = Scope("user", principal.tenant_id, str(invited.user_id))
            rate = Limits(requests_per_minute=limit)
            await set_limits(ports.database, ports.signals, scope, rate, actor=principal.actor)
    except UserExists:
        raise Problem(409, "user-exists", "The user is there already", "Username already registered") from None
    except (MayNot, NoSuchUser) as less:
        raise Problem(403, "beyond-own", "More than you have", str(less)) from None
    ports.relay.wake()
    return SignedUp(message="User created successfully.", api_key=issued.key.reveal())
