"""What a worker reads sources with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from backplane.ports.database import Database
from backplane.ports.page_cache import PageCache
from backplane.security.public_transport import PublicTransport
from backplane.settings import SourceSettings
from backplane.settings.pools import RUNS_GGUF, PoolSettings
from workers.sources.extractor import Extractor
from workers.sources.fetcher import Fetcher
from workers.sources.pages import Pages
from workers.sources.port import SourceReader
from workers.sources.readers import SiteReader, TextReader, UrlReader
from workers.sources.resolving import Sources
from workers.sources.robots import Robots
from workers.sources.tenant_sites import TenantSites

_CHARACTERS_A_TOKEN = 3
"""Few, so that what fills half of a window in characters fills no more of it in tokens, but for rare scripts."""
_LOCAL_WINDOW = 4096
"""Tokens that a local engine takes where nobody says."""


@asynccontextmanager
async def open_sources(
    settings: SourceSettings, pool: PoolSettings, database: Database, cache: PageCache, collections: SourceReader
) -> AsyncIterator[Sources]:
    """Everything that reads sources for ``pool``, closed with the context. ``collections`` reads those."""
    private = settings.allow_private
    fetcher = Fetcher(PublicTransport(allow_private=private), settings.user_agent, in_the_clear=private)
    extractor, sites = Extractor(), TenantSites(database)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(fetcher.aclose)
        stack.push_async_callback(extractor.aclose)
        robots = Robots(fetcher, cache, settings.user_agent)
        pages = Pages(fetcher, extractor, robots, cache, settings)
        readers: dict[str, SourceReader] = {
            "text": TextReader(),
            "url": UrlReader(pages, sites),
            "site": SiteReader(pages, sites),
            "collection": collections,
        }
        yield Sources(readers, settings, _characters(settings, pool), "json_schema" in pool.capabilities)


def _characters(settings: SourceSettings, pool: PoolSettings) -> int:
    window = pool.context_window or (_LOCAL_WINDOW if pool.backend in RUNS_GGUF else None)
    return (
        settings.all_characters if window is None else min(settings.all_characters, window * _CHARACTERS_A_TOKEN // 2)
    )
