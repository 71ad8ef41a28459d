"""Pages of the web in Redis, for their short while."""

from __future__ import annotations

import hashlib
import logging
from uuid import UUID

from backplane.adapters.redis.connection import FAILED, client

logger = logging.getLogger(__name__)


class RedisPageCache:
    """The ``PageCache`` port."""

    def __init__(self, url: str) -> None:
        self._client = client(url)

    async def get(self, tenant_id: UUID, url: str) -> bytes | None:
        try:
            found = await self._client.get(_name(tenant_id, url))
        except FAILED as error:
            logger.info("page cache away", extra={"action": "page_cache_away", "cause": type(error).__name__})
            return None
        assert found is None or isinstance(found, bytes), "the client decodes nothing"
        return found

    async def keep(self, tenant_id: UUID, url: str, page: bytes, for_s: float) -> None:
        try:
            if for_s > 0:
                await self._client.set(_name(tenant_id, url), page, px=max(1, round(for_s * 1000)))
            else:
                await self._client.unlink(_name(tenant_id, url))
        except FAILED as error:
            logger.info("page not kept", extra={"action": "page_not_kept", "cause": type(error).__name__})

    async def close(self) -> None:
        await self._client.aclose()


def _name(tenant_id: UUID, url: str) -> str:
    """A URL may be long, and hold what nobody is to read in a list of keys."""
    return f"pages:{tenant_id}:{hashlib.sha256(url.encode()).hexdigest()}"
