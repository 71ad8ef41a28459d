"""`/v1/auth/apikeys`: keys of providers, by name. They are the tenant's own provider keys."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from backplane.security.principal import Principal
from backplane.web.problems import Problem, not_found
from command_api.admission import Refused
from command_api.message_body import Text
from command_api.ports import ports_of
from command_api.provider_keys import AddedBefore
from gateway.earlier.answering import invalid
from gateway.earlier.details import responses
from gateway.earlier.sessions.callers import signed_in
from gateway.earlier.sessions.families import Family, keyed_by, pools_of
from query_api import readers

router = APIRouter(prefix="/v1/auth/apikeys", tags=["earlier: sessions"])

Admin = Annotated[Principal, Depends(signed_in("provider_keys.manage"))]
ApiType = Annotated[Family | None, Query(description="only keys of this provider", examples=["openai"])]


class NewKeyRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    api_key: SecretStr = Field(description="the key as the provider gave it", examples=["sk-proj-0123456789"])
    key_name: Text | None = Field(
        None, min_length=1, max_length=200, description="what it is called; none: as its provider", examples=["mine"]
    )
    api_type: Family = Field(
        "openai", description="whose it is: for the pools that ask this provider itself", examples=["openai"]
    )


class NamedKey(BaseModel):
    key_name: str = Field(description="what it is called", examples=["mine"])
    key_type: str = Field(description="whose it is", examples=["openai"])
    key: str = Field(description="a hash of it: what it is, is shown to nobody", examples=["0a1b2c3d4e5f"])


@router.post(
    "",
    status_code=201,
    response_class=Response,
    summary="Sessions: add a provider's key",
    responses=responses(400, 401, 403, 409, 413, 415, 422, 429, 503),
)
async def add_key(request: Request, principal: Admin, body: NewKeyRequest) -> Response:
    """The whole tenant's prompts are asked with it. It is encrypted, and never shown again."""
    ports, secret = ports_of(request), body.api_key.get_secret_value()
    pools = keyed_by(ports.settings, body.api_type)
    if not pools:
        raise invalid("api_type", f"no pool asks {body.api_type} itself, and none is called {body.api_type!r}")
    try:
        await ports.provider_keys.add_to(
            principal.tenant_id, pools, secret, body.key_name or body.api_type, actor=principal.actor
        )
    except AddedBefore:
        raise Problem(409, "provider-key-exists", "The key is there already", "This key was added before") from None
    except Refused as refused:
        raise invalid("api_key", str(refused)) from None
    ports.relay.wake()
    return Response(status_code=201)


@router.get("", summary="Sessions: the providers' keys", responses=responses(401, 403, 422, 503))
async def list_keys(request: Request, principal: Admin, api_type: ApiType = None) -> list[NamedKey]:
    """Those in use, oldest first."""
    found = await _keys(request, principal)
    # One that was added to several pools is one key here.
    shown = dict.fromkeys((one["name"], family, one["fingerprint"]) for family, one in found)
    return [
        NamedKey(key_name=name, key_type=family, key=fingerprint)
        for name, family, fingerprint in shown
        if api_type in (None, family)
    ]


@router.delete(
    "/{provider_key_name}",
    response_class=Response,
    summary="Sessions: remove a provider's key",
    responses=responses(401, 403, 404, 503),
)
async def remove_key(
    request: Request,
    principal: Admin,
    provider_key_name: Annotated[str, Path(description="what it is called", examples=["mine"])],
) -> Response:
    """All keys of that name."""
    ports = ports_of(request)
    named = [one["id"] for _, one in await _keys(request, principal) if one["name"] == provider_key_name]
    if not named:
        raise not_found("key")
    for key_id in named:
        await ports.provider_keys.retire(principal.tenant_id, key_id, actor=principal.actor)
    ports.relay.wake()
    return Response()


async def _keys(request: Request, principal: Principal) -> list[tuple[Family, dict[str, Any]]]:
    """Each with whose it is; those that this door's clients know nothing of are left out."""
    settings = ports_of(request).settings
    families: tuple[Family, ...] = ("openai", "anthropic")
    of_pool = {pool: family for family in families for pool in pools_of(settings, family)}
    rows = await readers.provider_keys(request.app.state.query, principal)
    return [(of_pool[one["pool"]], dict(one)) for one in rows if one["pool"] in of_pool]
