"""What hosts say of machines, by RFC 9309."""

from __future__ import annotations

from uuid import UUID

import httpx

from backplane.ports.page_cache import PageCache
from backplane.security.fetch_rules import NotFetchable, check
from event_schemas.fetching import FetchRules
from workers.sources.fetcher import CannotFetch, Fetcher, host_of

_MOST_BYTES = 500 * 1024
_KEPT_S = 3600.0


class Robots:
    """``user_agent`` is what pages are asked with; hosts know it by its product's name."""

    def __init__(self, fetcher: Fetcher, cache: PageCache, user_agent: str) -> None:
        self._fetcher = fetcher
        self._cache = cache
        self._product = user_agent.partition("/")[0]

    async def check(self, tenant_id: UUID, url: httpx.URL, rules: FetchRules, *, of_site: bool) -> None:
        """Raises CannotFetch where the host's robots.txt forbids ``url``, or could not be asked for."""
        # Only where it is used, as the other libraries that read what strangers write.
        from protego import Protego

        said = await self._said(tenant_id, url.copy_with(raw_path=b"/robots.txt", fragment=None), rules, of_site)
        if said and not Protego.parse(said).can_fetch(str(url), self._product):
            raise CannotFetch(f"the robots.txt of {host_of(url)} forbids it")

    async def _said(self, tenant_id: UUID, url: httpx.URL, rules: FetchRules, of_site: bool) -> str:
        name = f"robots of {url}"  # apart from the page at that URL
        known = await self._cache.get(tenant_id, name)
        if known is not None:
            return known.decode()

        async def leave(hop: httpx.URL) -> None:
            check(rules, host_of(hop), of_site=of_site)

        try:
            answer = await self._fetcher.get(url, leave, most_bytes=_MOST_BYTES, types=None)
            said = answer.body.decode(errors="replace")
        except NotFetchable as refused:
            raise CannotFetch(f"the robots.txt of {host_of(url)} cannot be asked for: {refused}") from None
        except CannotFetch as error:
            if error.status is None or not 400 <= error.status < 500 or error.status == 429:
                raise CannotFetch(f"the robots.txt of {host_of(url)} cannot be had: {error}", error.status) from None
            said = ""  # who has none forbids nothing
        await self._cache.keep(tenant_id, name, said.encode(), _KEPT_S)
        return said
