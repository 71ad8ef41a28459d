"""Pages in this process's memory, for tests; it keeps to the same contract as what serves."""

from __future__ import annotations

import time
from uuid import UUID


class MemoryPageCache:
    """The ``PageCache`` port."""

    def __init__(self) -> None:
        self._pages: dict[tuple[UUID, str], tuple[bytes, float]] = {}

    async def get(self, tenant_id: UUID, url: str) -> bytes | None:
        page, until = self._pages.get((tenant_id, url), (None, 0.0))
        return page if time.monotonic() < until else None

    async def keep(self, tenant_id: UUID, url: str, page: bytes, for_s: float) -> None:
        self._pages[tenant_id, url] = page, time.monotonic() + for_s
