"""Readers of pages, of sites, and of what was given by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

from backplane.ports.database import DatabaseUnavailable
from backplane.security.fetch_rules import NotFetchable
from event_schemas.sources import SiteWish, SourceKind, TextWish, UrlWish
from workers.sources.fetcher import CannotFetch
from workers.sources.pages import Page, Pages
from workers.sources.port import Material, SourceUnavailable
from workers.sources.tenant_sites import Site, TenantSites


class TextReader:
    async def read(self, tenant_id: UUID, wish: TextWish, question: str) -> Sequence[Material]:
        return [Material("text", wish.text)]

    async def describe(self, tenant_id: UUID, wish: TextWish) -> tuple[str, str]:
        raise SourceUnavailable("a text that was given by hand is nothing to pick")


class UrlReader:
    def __init__(self, pages: Pages, sites: TenantSites) -> None:
        self._pages = pages
        self._sites = sites

    async def read(self, tenant_id: UUID, wish: UrlWish, question: str) -> Sequence[Material]:
        try:
            page = await self._pages.page(tenant_id, wish.url, await self._sites.rules(tenant_id))
        except (CannotFetch, NotFetchable) as error:
            raise SourceUnavailable(str(error)) from None
        except DatabaseUnavailable:
            raise SourceUnavailable("what its tenant lets be fetched cannot be read now") from None
        return [_material("url", page)]

    async def describe(self, tenant_id: UUID, wish: UrlWish) -> tuple[str, str]:
        raise SourceUnavailable("a URL is nothing to pick")


class SiteReader:
    def __init__(self, pages: Pages, sites: TenantSites) -> None:
        self._pages = pages
        self._sites = sites

    async def read(self, tenant_id: UUID, wish: SiteWish, question: str) -> Sequence[Material]:
        """All of its pages that can be had; one at least."""
        site = await self._site(tenant_id, wish)
        try:
            rules = await self._sites.rules(tenant_id)
        except DatabaseUnavailable:
            raise SourceUnavailable("what its tenant lets be fetched cannot be read now") from None
        each = (self._pages.page(tenant_id, url, rules, every_s=site.every_s) for url in site.urls)
        found = await asyncio.gather(*each, return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException) and not isinstance(one, CannotFetch | NotFetchable):
                raise one
        pages = [one for one in found if isinstance(one, Page)]
        if not pages:
            raise SourceUnavailable(f"the site {site.name!r}: {found[0]}")
        return [_material("site", page, site.name) for page in pages]

    async def describe(self, tenant_id: UUID, wish: SiteWish) -> tuple[str, str]:
        site = await self._site(tenant_id, wish)
        return site.name, site.description or site.domain

    async def _site(self, tenant_id: UUID, wish: SiteWish) -> Site:
        try:
            site = await self._sites.site(tenant_id, wish.site)
        except DatabaseUnavailable:
            raise SourceUnavailable("the sites of its tenant cannot be read now") from None
        if site is None:
            raise SourceUnavailable(f"the site {wish.site!r} was removed")
        return site


def _material(kind: SourceKind, page: Page, site: str | None = None) -> Material:
    return Material(kind, page.text, page.title, page.url, site, fetched_at=page.fetched_at)
