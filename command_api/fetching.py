"""What a tenant lets be fetched, and its sites: each change is a command with an event, decided in one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from backplane.ports.database import Database, Row, TenantSession
from backplane.ports.identifiers import new_id
from backplane.security.fetch_rules import NotFetchable, check, host_in
from command_api import outbox
from command_api.admission import Refused
from event_schemas.fetching import (
    AddSite,
    ChangeSite,
    FetchingSet,
    FetchRules,
    RemoveSite,
    SetFetching,
    SiteAdded,
    SiteChanged,
    SiteRemoved,
)

SOURCE = "/parley/command_api"
MOST_SITES = 200
"""Of one tenant."""

_COLUMNS = "site_id AS id, name, domain, description, urls, every_s, added_at"


class NoSuchSite(LookupError):
    """Not there, or somebody else's."""


class SiteExists(ValueError):
    """Another site has that name or domain. ``args[0]`` says which."""


async def rules_of(session: TenantSession) -> FetchRules:
    """Raises DatabaseUnavailable."""
    row = await session.one("SELECT rules FROM control.fetching")
    return FetchRules() if row is None else FetchRules.model_validate(row["rules"])


async def fetch_rules(database: Database, tenant_id: UUID) -> FetchRules:
    """Raises DatabaseUnavailable."""
    async with database.tenant(tenant_id) as session:
        return await rules_of(session)


async def set_fetching(database: Database, tenant_id: UUID, rules: FetchRules, *, actor: str) -> bool:
    """They hold from now on, also for prompts that wait. False if they did already. Raises DatabaseUnavailable."""
    async with database.tenant(tenant_id) as session:
        changed = await session.execute(
            "INSERT INTO control.fetching AS f (tenant_id, rules) VALUES (:tenant_id, :rules)"
            " ON CONFLICT (tenant_id) DO UPDATE SET rules = excluded.rules WHERE f.rules <> excluded.rules",
            tenant_id=tenant_id,
            rules=rules.model_dump(mode="json"),
        )
        if changed:
            command = SetFetching(tenant_id=tenant_id, rules=rules)
            await outbox.decided(session, SOURCE, command, FetchingSet(tenant_id=tenant_id, rules=rules), actor)
    return bool(changed)


async def sites(database: Database, tenant_id: UUID) -> list[Row]:
    """All of them, by name. Raises DatabaseUnavailable."""
    async with database.tenant(tenant_id) as session:
        return await session.all(f"SELECT {_COLUMNS} FROM control.sites ORDER BY lower(name)")  # noqa: S608


async def add_site(database: Database, tenant_id: UUID, site: Mapping[str, Any], *, actor: str) -> Row:
    """``site`` has ``name``, ``domain``, ``description``, ``urls`` and ``every_s``. Raises Refused, SiteExists,
    DatabaseUnavailable."""
    site_id = new_id()
    async with database.tenant(tenant_id) as session:
        await _check(session, site, None)
        row = await session.one(
            f"""INSERT INTO control.sites (site_id, tenant_id, name, domain, description, urls, every_s)
                VALUES (:id, :tenant_id, :name, :domain, :description, :urls, :every_s) RETURNING {_COLUMNS}""",  # noqa: S608
            id=site_id,
            tenant_id=tenant_id,
            **site,
        )
        assert row is not None
        command = AddSite(site_id=site_id, **_shown(site))
        await outbox.decided(session, SOURCE, command, SiteAdded(**command.model_dump()), actor)
    return row


async def change_site(
    database: Database, tenant_id: UUID, site_id: UUID, site: Mapping[str, Any], *, actor: str
) -> Row:
    """From now on it is as ``site`` says. Raises NoSuchSite, Refused, SiteExists, DatabaseUnavailable."""
    async with database.tenant(tenant_id) as session:
        if await session.one("SELECT 1 FROM control.sites WHERE site_id = :id", id=site_id) is None:
            raise NoSuchSite(f"there is no site {site_id}")
        await _check(session, site, site_id)
        row = await session.one(
            f"""UPDATE control.sites SET name = :name, domain = :domain, description = :description, urls = :urls,
                  every_s = :every_s WHERE site_id = :id RETURNING {_COLUMNS}""",  # noqa: S608
            id=site_id,
            **site,
        )
        if row is None:  # removed meanwhile
            raise NoSuchSite(f"there is no site {site_id}")
        command = ChangeSite(site_id=site_id, **_shown(site))
        await outbox.decided(session, SOURCE, command, SiteChanged(**command.model_dump()), actor)
    return row


async def remove_site(database: Database, tenant_id: UUID, site_id: UUID, *, actor: str) -> None:
    """Prompts cannot name it any more. Raises NoSuchSite, DatabaseUnavailable."""
    async with database.tenant(tenant_id) as session:
        if not await session.execute("DELETE FROM control.sites WHERE site_id = :id", id=site_id):
            raise NoSuchSite(f"there is no site {site_id}")
        await outbox.decided(session, SOURCE, RemoveSite(site_id=site_id), SiteRemoved(site_id=site_id), actor)


async def _check(session: TenantSession, site: Mapping[str, Any], site_id: UUID | None) -> None:
    rules = await rules_of(session)
    for number, url in enumerate(site["urls"]):
        try:
            check(rules, host_in(url), of_site=True)
        except NotFetchable as error:
            raise Refused("unusable-url", f"body.urls.{number}", f"It cannot be fetched: {error}.") from None
    # One at a time for each tenant, until the end of the transaction.
    await session.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended(CAST(:lock AS text), 0))", lock=f"sites/{session.tenant_id}"
    )
    others = await session.all(
        "SELECT site_id, lower(name) = lower(CAST(:name AS text)) AS same_name, domain = :domain AS same_domain"
        " FROM control.sites WHERE site_id IS DISTINCT FROM CAST(:id AS uuid)",
        id=site_id,
        name=site["name"],
        domain=site["domain"],
    )
    for field in ("name", "domain"):
        if any(one[f"same_{field}"] for one in others):
            raise SiteExists(field)
    if len(others) >= MOST_SITES:
        raise Refused("too-many-sites", "body", f"There are {len(others)} sites, the limit. Remove one.")


def _shown(site: Mapping[str, Any]) -> dict[str, Any]:
    """As events tell it: a query may hold a secret."""
    return {**site, "urls": tuple(urlsplit(url)._replace(query="", fragment="").geturl() for url in site["urls"])}
