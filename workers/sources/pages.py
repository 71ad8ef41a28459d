"""Pages of the web as text: from the cache while they are fresh, else asked for, with what is known of them before."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import httpx
from pydantic import AwareDatetime, BaseModel, ValidationError

from backplane.ports.page_cache import PageCache
from backplane.security.fetch_rules import check
from backplane.settings import SourceSettings
from event_schemas.fetching import FetchRules
from workers.sources.extraction import FEEDS, MARKUP, TEXTS
from workers.sources.extractor import Extractor
from workers.sources.fetcher import Fetched, Fetcher, host_of, parsed
from workers.sources.robots import Robots

_TYPES = (*MARKUP, *FEEDS, *TEXTS)
_UNSAID_S = 60.0
"""How long a page is fresh that says nothing about it."""


class Page(BaseModel):
    url: str
    """Where it was found."""
    title: str | None
    text: str
    fetched_at: AwareDatetime
    validators: dict[str, str] = {}
    """Headers that ask whether it has changed."""
    fresh_s: float = 0.0
    """From then on, as it says itself."""

    def is_fresh(self, every_s: float | None) -> bool:
        fresh_s = self.fresh_s if every_s is None else every_s
        return (datetime.now(UTC) - self.fetched_at).total_seconds() < fresh_s


class Pages:
    def __init__(
        self, fetcher: Fetcher, extractor: Extractor, robots: Robots, cache: PageCache, settings: SourceSettings
    ) -> None:
        self._fetcher = fetcher
        self._extractor = extractor
        self._robots = robots
        self._cache = cache
        self._settings = settings

    async def page(self, tenant_id: UUID, url: str, rules: FetchRules, *, every_s: float | None = None) -> Page:
        """``every_s``: how long a site's page is fresh, whatever it says itself; None for one that a prompt names.

        Raises CannotFetch, NotFetchable.
        """
        asked = parsed(url)
        of_site = every_s is not None
        check(rules, host_of(asked), of_site=of_site)
        known = await self._known(tenant_id, asked)
        if known is not None and known.is_fresh(every_s):
            # It may lead to a host that is denied meanwhile.
            check(rules, host_of(parsed(known.url)), of_site=of_site)
            return known

        async def leave(hop: httpx.URL) -> None:
            check(rules, host_of(hop), of_site=of_site)
            if rules.robots:
                await self._robots.check(tenant_id, hop, rules, of_site=of_site)

        answer = await self._fetcher.get(
            asked,
            leave,
            most_bytes=self._settings.page_bytes,
            types=_TYPES,
            validators=None if known is None else known.validators,
        )
        page = await self._read(answer) if known is None or answer.status != 304 else known
        now = {"url": answer.url, "fetched_at": datetime.now(UTC), "fresh_s": self._fresh_s(answer)}
        page = page.model_copy(update=now)
        kept_s = 0.0 if not every_s and _says(answer, "no-store") else max(every_s or 0.0, self._settings.fresh_s)
        await self._cache.keep(tenant_id, str(asked), page.model_dump_json().encode(), kept_s)
        return page

    async def _known(self, tenant_id: UUID, url: httpx.URL) -> Page | None:
        kept = await self._cache.get(tenant_id, str(url))
        try:
            return None if kept is None else Page.model_validate_json(kept)
        except ValidationError:  # of another release
            return None

    async def _read(self, answer: Fetched) -> Page:
        charset = httpx.Response(200, headers={"content-type": answer.headers["content-type"]}).charset_encoding
        title, text = await self._extractor.extract(answer.body, answer.media_type, charset)
        known_by = (("etag", "if-none-match"), ("last-modified", "if-modified-since"))
        validators = {asks: answer.headers[says] for says, asks in known_by if says in answer.headers}
        return Page(url=answer.url, title=title, text=text, fetched_at=datetime.now(UTC), validators=validators)

    def _fresh_s(self, answer: Fetched) -> float:
        if _says(answer, "no-cache") or _says(answer, "no-store"):
            return 0.0
        said = next((value for name, value in _directives(answer) if name == "max-age" and value.isdecimal()), None)
        return min(_UNSAID_S if said is None else float(said[:12]), self._settings.fresh_s)


def _directives(answer: Fetched) -> list[tuple[str, str]]:
    parts = (one.partition("=") for one in answer.headers.get("cache-control", "").lower().split(","))
    return [(name.strip(), value.strip().strip('"')) for name, _, value in parts]


def _says(answer: Fetched, directive: str) -> bool:
    return any(name == directive for name, _ in _directives(answer))
