"""API keys over HTTP: issue, rotate, revoke."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from backplane.security.principal import Principal
from backplane.web.authentication import requires
from backplane.web.problems import Problem, not_found, responses
from command_api.admission import Refused
from command_api.api_keys import KeyEnded, MayNot, NoSuchKey, NoSuchUser, Wanted
from command_api.message_body import Text
from command_api.service import PeoplePorts
from event_schemas.control_plane import KeyRole

router = APIRouter(prefix="/v1/api-keys", tags=["people"])

Keyholder = Annotated[Principal, Depends(requires("keys.own"))]
ApiKeyId = Annotated[UUID, Path(description="the key, as the 201 named it")]
Name = Annotated[Text, Field(min_length=1, max_length=100)]

_ID = "01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d14"
_USER = "01990f6e-0000-7000-8000-000000000001"
_TIME = "2026-06-01T12:00:00Z"
_KEY = "parley_0123456789abcdef_…"


class ApiKeyBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Text = Field("", max_length=200, description="a label for people", examples=["nightly job"])
    role: KeyRole = Field(
        "member", description="what it may do: no more than you, and than its user", examples=["member"]
    )
    user_id: UUID | None = Field(
        default=None, description="whose it is; null: nobody's, as a service has one", examples=[_USER]
    )
    models: list[Name] | None = Field(
        default=None, max_length=100, description="the models that it may ask; null: all", examples=[["gemma-3-270m"]]
    )
    personas: list[Name] | None = Field(
        default=None, max_length=100, description="the personas that it may ask as; null: all", examples=[["clerk"]]
    )
    expires_at: AwareDatetime | None = Field(default=None, description="when it ends; null: never", examples=[_TIME])


class ApiKeyCreated(BaseModel):
    id: UUID = Field(description="names it from now on", examples=[_ID])
    key: str = Field(description="the whole key, shown this once", examples=[_KEY])
    prefix: str = Field(description="its public part", examples=["parley_0123456789abcdef"])


class ApiKeyRotated(ApiKeyCreated):
    former_ends_at: datetime = Field(description="until then the key before works, too", examples=[_TIME])


class RotationBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    overlap_minutes: int = Field(
        default=240,
        ge=0,
        le=7 * 24 * 60,
        description="how long the key as it is goes on working beside the new one",
        examples=[240],
    )


@router.post(
    "",
    status_code=201,
    response_model=ApiKeyCreated,
    summary="Issue an API key",
    responses=responses(400, 401, 403, 404, 413, 415, 422, 503),
)
async def issue_api_key(request: Request, principal: Keyholder, body: ApiKeyBody) -> ApiKeyCreated:
    """A member issues keys of its own user. Nobody issues a key that may more, or ends later, than their own."""
    ports = PeoplePorts.of(request)
    wanted = Wanted(
        body.name,
        body.role,
        body.user_id,
        None if body.models is None else tuple(body.models),
        None if body.personas is None else tuple(body.personas),
        body.expires_at,
    )
    try:
        issued = await ports.api_keys.issue(principal, wanted)
    except NoSuchUser:
        raise not_found("user") from None
    except Refused as refused:
        errors = [{"field": refused.field, "message": str(refused)}]
        raise Problem(422, refused.type, "The key is refused", str(refused), errors=errors) from None
    except MayNot as less:
        raise _forbidden(less) from None
    ports.relay.wake()
    return ApiKeyCreated(id=issued.key_id, key=issued.key.reveal(), prefix=issued.key.public)


@router.post(
    "/{api_key_id}/rotate",
    response_model=ApiKeyRotated,
    summary="Give an API key a new secret",
    responses=responses(400, 401, 403, 404, 409, 413, 415, 422, 503),
)
async def rotate_api_key(
    request: Request, principal: Keyholder, api_key_id: ApiKeyId, body: RotationBody
) -> ApiKeyRotated:
    """The new secret works at once. The one before works on for a while, and any earlier one ends now."""
    ports = PeoplePorts.of(request)
    try:
        rotated = await ports.api_keys.rotate(principal, api_key_id, timedelta(minutes=body.overlap_minutes))
    except NoSuchKey:
        raise not_found("API key") from None
    except KeyEnded:
        raise Problem(
            409, "key-ended", "The key has ended", "It was revoked or has expired: issue a new one."
        ) from None
    except MayNot as less:
        raise _forbidden(less) from None
    ports.relay.wake()
    return ApiKeyRotated(
        id=api_key_id, key=rotated.key.reveal(), prefix=rotated.key.public, former_ends_at=rotated.former_ends_at
    )


@router.delete(
    "/{api_key_id}", status_code=204, summary="Revoke an API key", responses=responses(401, 403, 404, 422, 503)
)
async def revoke_api_key(request: Request, principal: Keyholder, api_key_id: ApiKeyId) -> None:
    """At once and on every process, with the sessions that were begun with it."""
    ports = PeoplePorts.of(request)
    try:
        await ports.api_keys.revoke(principal, api_key_id)
    except NoSuchKey:
        raise not_found("API key") from None
    except MayNot as less:
        raise _forbidden(less) from None
    ports.relay.wake()


def _forbidden(less: MayNot) -> Problem:
    return Problem(403, "beyond-own", "More than you have", str(less))
