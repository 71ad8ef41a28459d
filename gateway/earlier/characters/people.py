"""`POST /signup/`: a user with a key."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form, Request
from pydantic import BaseModel, Field

from backplane.security.principal import Principal
from backplane.web.problems import Problem
from command_api.api_keys import MayNot, NoSuchUser, Wanted
from command_api.message_body import Text
from command_api.service import PeoplePorts
from gateway.earlier.details import responses
from gateway.earlier.joining import joined, signs_up

router = APIRouter(tags=["earlier: characters"])

_FORM = "application/x-www-form-urlencoded"


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
    invited = await joined(request, principal, username, address, "Username already registered")
    wanted = Wanted("signed up", "member", invited.user_id, None, None, None)
    try:
        issued = await ports.api_keys.issue(principal, wanted)
    except (MayNot, NoSuchUser) as less:
        raise Problem(403, "beyond-own", "More than you have", str(less)) from None
    ports.relay.wake()
    return SignedUp(message="User created successfully.", api_key=issued.key.reveal())
