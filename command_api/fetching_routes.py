"""The endpoints of what a tenant lets be fetched, and of its sites."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from backplane.security.fetch_rules import MOST_CHARACTERS
from backplane.security.principal import Principal
from backplane.web.authentication import requires
from backplane.web.problems import Problem, not_found, responses
from command_api import fetching
from command_api.admission import Refused
from command_api.fetching import NoSuchSite, SiteExists
from command_api.message_body import Text
from command_api.ports import ports_of
from event_schemas.fetching import FetchRules

router = APIRouter(prefix="/v1", tags=["sources"])

Admin = Annotated[Principal, Depends(requires("sources.manage"))]

SiteId = Annotated[UUID, Path(description="the site, as the 201 named it")]

_SITE = "01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d15"
_LABEL = "[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_DOMAIN = rf"^({_LABEL}\.)*{_LABEL}$"
Host = Annotated[str, Field(pattern=rf"^(\*\.)?({_LABEL}\.)*{_LABEL}$", max_length=253)]


class FetchingBody(BaseModel):
    """All of it: what is left out is as it is without any."""

    model_config = ConfigDict(extra="forbid")

    enabled: bool = Field(
        False, description="prompts may name URLs; what they name is fetched by the workers", examples=[True]
    )
    allow: list[Host] = Field(
        [],
        max_length=500,
        description="hosts of such URLs, and of where they lead: `example.com` is that one, `*.example.com` all below"
        " it; empty: all",
        examples=[["example.com", "*.example.com"]],
    )
    deny: list[Host] = Field(
        [], max_length=500, description="hosts of which nothing is fetched, for no site either", examples=[[]]
    )
    robots: bool = Field(
        True, description="a page is not fetched where its host's robots.txt forbids it", examples=[True]
    )


class SiteBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Text = Field(
        min_length=1,
        max_length=100,
        pattern=r"^[^|\s]([^|]*[^|\s])?$",
        description="prompts name it",
        examples=["news"],
    )
    domain: str = Field(
        max_length=253, pattern=_DOMAIN, description="prompts may name it by this, too", examples=["example.com"]
    )
    description: Text | None = Field(
        None, max_length=1000, description="what is there, for a model that picks", examples=["What happens in tea."]
    )
    urls: list[Annotated[Text, Field(min_length=1, max_length=MOST_CHARACTERS)]] = Field(
        min_length=1,
        max_length=10,
        description="pages and feeds; events show them without their queries",
        examples=[["https://example.com/feed.xml"]],
    )
    every_s: int = Field(
        900, ge=0, le=86_400, description="seconds until they are fetched anew, when a prompt asks", examples=[900]
    )


class SiteView(SiteBody):
    model_config = ConfigDict(extra="ignore")

    id: UUID = Field(description="names it from now on", examples=[_SITE])
    added_at: datetime = Field(description="when it was added", examples=["2026-03-01T12:00:00.123456Z"])


class SiteList(BaseModel):
    sites: list[SiteView] = Field(description="by name")


@router.get(
    "/fetching",
    response_model=FetchingBody,
    summary="What prompts may have fetched",
    responses=responses(401, 403, 422, 503),
)
async def read_fetching(request: Request, principal: Admin) -> Any:
    rules = await fetching.fetch_rules(ports_of(request).database, principal.tenant_id)
    return FetchingBody.model_validate(rules.model_dump(mode="json"))


@router.put(
    "/fetching",
    response_model=FetchingBody,
    summary="Say what prompts may have fetched",
    responses=responses(400, 401, 403, 413, 415, 422, 503),
)
async def put_fetching(request: Request, principal: Admin, body: FetchingBody) -> FetchingBody:
    """It holds at once, also for prompts that wait. Whatever it says, no private address is reached."""
    ports = ports_of(request)
    rules = FetchRules(enabled=body.enabled, allow=tuple(body.allow), deny=tuple(body.deny), robots=body.robots)
    await fetching.set_fetching(ports.database, principal.tenant_id, rules, actor=principal.actor)
    ports.relay.wake()
    return body


@router.get("/sites", response_model=SiteList, summary="Sites", responses=responses(401, 403, 422, 503))
async def list_sites(request: Request, principal: Admin) -> Any:
    return {"sites": await fetching.sites(ports_of(request).database, principal.tenant_id)}


@router.post(
    "/sites",
    status_code=201,
    response_model=SiteView,
    summary="Add a site",
    responses=responses(400, 401, 403, 409, 413, 415, 422, 503),
)
async def add_site(request: Request, principal: Admin, body: SiteBody) -> Any:
    """Prompts of the tenant may name it from now on, whether or not they may name URLs."""
    ports = ports_of(request)
    try:
        row = await fetching.add_site(ports.database, principal.tenant_id, body.model_dump(), actor=principal.actor)
    except Refused as refused:
        raise _refusal(refused) from None
    except SiteExists as exists:
        raise _exists(exists) from None
    ports.relay.wake()
    return row


@router.put(
    "/sites/{site_id}",
    response_model=SiteView,
    summary="Change a site",
    responses=responses(400, 401, 403, 404, 409, 413, 415, 422, 503),
)
async def change_site(request: Request, principal: Admin, site_id: SiteId, body: SiteBody) -> Any:
    """All of it."""
    ports = ports_of(request)
    try:
        row = await fetching.change_site(
            ports.database, principal.tenant_id, site_id, body.model_dump(), actor=principal.actor
        )
    except NoSuchSite:
        raise not_found("site") from None
    except Refused as refused:
        raise _refusal(refused) from None
    except SiteExists as exists:
        raise _exists(exists) from None
    ports.relay.wake()
    return row


@router.delete(
    "/sites/{site_id}", status_code=204, summary="Remove a site", responses=responses(401, 403, 404, 422, 503)
)
async def remove_site(request: Request, principal: Admin, site_id: SiteId) -> None:
    """Prompts that name it are refused; one that waits fails, unless it can do without it."""
    ports = ports_of(request)
    try:
        await fetching.remove_site(ports.database, principal.tenant_id, site_id, actor=principal.actor)
    except NoSuchSite:
        raise not_found("site") from None
    ports.relay.wake()


def _refusal(refused: Refused) -> Problem:
    errors = [{"field": refused.field, "message": str(refused)}]
    return Problem(422, refused.type, "The site is refused", str(refused), errors=errors)


def _exists(exists: SiteExists) -> Problem:
    return Problem(409, "site-exists", "The site is there already", f"Another site has that {exists.args[0]}.")
