"""What a tenant lets be fetched, and its sites, as they stand now: what is denied holds for prompts that wait, too."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from backplane.ports.database import Database
from event_schemas.fetching import FetchRules


class Site(NamedTuple):
    name: str
    domain: str
    description: str | None
    urls: tuple[str, ...]
    every_s: float


class TenantSites:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def rules(self, tenant_id: UUID) -> FetchRules:
        """Raises DatabaseUnavailable."""
        async with self._database.tenant(tenant_id) as session:
            row = await session.one("SELECT rules FROM control.fetching")
        return FetchRules() if row is None else FetchRules.model_validate(row["rules"])

    async def site(self, tenant_id: UUID, named: str) -> Site | None:
        """By its name, else by its domain. Raises DatabaseUnavailable."""
        async with self._database.tenant(tenant_id) as session:
            row = await session.one(
                "SELECT name, domain, description, urls, every_s FROM control.sites"
                " WHERE :named IN (lower(name), domain) ORDER BY lower(name) = :named DESC LIMIT 1",
                named=named.lower(),
            )
        return None if row is None else Site(**(row | {"urls": tuple(row["urls"])}))
