"""What a tenant lets its prompts fetch, and the sites that they may name."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from event_schemas.payload import Payload


class FetchRules(BaseModel):
    """Hosts are names in lower case: `example.com` is that one, `*.example.com` all below it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    enabled: bool = Field(default=False, description="prompts may name URLs; a tenant's sites can be named always")
    allow: tuple[str, ...] = Field(default=(), description="hosts of such URLs, and of where they lead; none: all")
    deny: tuple[str, ...] = Field(default=(), description="hosts of which nothing is fetched at all")
    robots: bool = Field(default=True, description="a page is not fetched where its host's robots.txt says so")


class _AboutTenant(Payload):
    tenant_id: UUID
    rules: FetchRules

    def subject(self) -> str:
        return f"tenant:{self.tenant_id}"


class SetFetching(_AboutTenant):
    wire_name: ClassVar[str] = "tenant.set_fetching.v1"


class FetchingSet(_AboutTenant):
    """These rules hold from now on, also for prompts that wait."""

    wire_name: ClassVar[str] = "tenant.fetching_set.v1"


class _AboutSite(Payload):
    site_id: UUID

    def subject(self) -> str:
        return f"site:{self.site_id}"


class _Site(_AboutSite):
    name: str = Field(description="that prompts name it by")
    domain: str = Field(description="likewise")
    description: str | None = Field(default=None, description="what is there, for a model that picks")
    urls: tuple[str, ...] = Field(description="pages and feeds, without their queries")
    every_s: int = Field(ge=0, description="seconds until they are fetched anew")


class AddSite(_Site):
    wire_name: ClassVar[str] = "site.add.v1"


class SiteAdded(_Site):
    """Prompts of the tenant may name it."""

    wire_name: ClassVar[str] = "site.added.v1"


class ChangeSite(_Site):
    wire_name: ClassVar[str] = "site.change.v1"


class SiteChanged(_Site):
    """From now on it is as it stands here."""

    wire_name: ClassVar[str] = "site.changed.v1"


class RemoveSite(_AboutSite):
    wire_name: ClassVar[str] = "site.remove.v1"


class SiteRemoved(_AboutSite):
    """Prompts that name it are refused."""

    wire_name: ClassVar[str] = "site.removed.v1"
