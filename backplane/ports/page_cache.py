"""What was fetched for a tenant, kept for a short while. Losing it costs a request and nothing else."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID


class PageCache(Protocol):
    """A tenant sees what was kept for it, never what was for another. Never raises for an unreachable server."""

    async def get(self, tenant_id: UUID, url: str) -> bytes | None:
        """What was kept last; None where nothing is, or nobody knows."""

    async def keep(self, tenant_id: UUID, url: str, page: bytes, for_s: float) -> None:
        """For ``for_s`` seconds; 0 or less drops what is there."""
