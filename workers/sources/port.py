"""What reads one kind of source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from event_schemas.sources import SourceKind


class SourceUnavailable(Exception):
    """It cannot be had. The message is for people: it may name a host, a site, a collection, and nothing more."""


@dataclass(frozen=True, slots=True)
class Material:
    """One numbered part of what is put before a question."""

    kind: SourceKind
    text: str
    title: str | None = None
    url: str | None = None
    site: str | None = None
    collection_id: UUID | None = None
    document_id: UUID | None = None
    chunk_id: UUID | None = None
    fetched_at: datetime | None = None
    chosen: bool = field(default=False, compare=False)


class SourceReader(Protocol):
    """Reads one kind of wish; stands in the dictionary of readers under it."""

    async def read(self, tenant_id: UUID, wish: Any, question: str) -> Sequence[Material]:
        """What ``wish``, which is of its kind, stands for. May be cancelled at any time. Raises SourceUnavailable."""

    async def describe(self, tenant_id: UUID, wish: Any) -> tuple[str, str]:
        """What a model that picks is told of ``wish``: its name, and what is there. Raises SourceUnavailable."""
