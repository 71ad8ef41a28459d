"""What may be read of collections. No HTTP here."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from backplane.ports import searches
from backplane.ports.database import Row
from backplane.security.principal import Principal
from query_api import collection_sql
from query_api.freshness import found
from query_api.opening import Opener
from query_api.service import QueryPorts

SEARCH_S = 20.0
"""The first question after a start waits for the embedder to be loaded."""


@dataclass(frozen=True, slots=True)
class DocumentPage:
    documents: list[Row]
    next: UUID | None


async def collections(ports: QueryPorts, principal: Principal) -> list[Row]:
    """Raises DatabaseUnavailable, WrappingUnavailable."""
    async with ports.database.tenant(principal.tenant_id) as session:
        rows = await collection_sql.collections(session)
    return [await _described(ports, principal, row) for row in rows]


async def collection(ports: QueryPorts, principal: Principal, collection_id: UUID) -> Row:
    """Raises NoSuch, ProjectionsLag, BusError, DatabaseUnavailable, WrappingUnavailable."""

    async def read() -> Row | None:
        async with ports.database.tenant(principal.tenant_id) as session:
            return await collection_sql.collection(session, collection_id)

    return await _described(ports, principal, await found(ports, "collection", read))


async def documents(
    ports: QueryPorts, principal: Principal, collection_id: UUID, *, before: UUID | None, limit: int
) -> DocumentPage:
    """The newest first. Raises what ``collection`` raises."""
    await collection(ports, principal, collection_id)
    async with ports.database.tenant(principal.tenant_id) as session:
        rows = await collection_sql.documents(session, collection_id, before=before, limit=limit + 1)
    shown = [await _named(ports, principal, row) for row in rows[:limit]]
    return DocumentPage(shown, rows[limit - 1]["id"] if len(rows) > limit else None)


async def document(ports: QueryPorts, principal: Principal, collection_id: UUID, document_id: UUID) -> Row:
    """Raises what ``collection`` raises."""

    async def read() -> Row | None:
        async with ports.database.tenant(principal.tenant_id) as session:
            return await collection_sql.document(session, collection_id, document_id)

    return await _named(ports, principal, await found(ports, "document", read))


async def search(ports: QueryPorts, principal: Principal, collection_id: UUID, question: str, most: int) -> list[Row]:
    """Chunks, the best first, with their ``score``. Raises SearchFailed, and what ``collection`` raises."""
    await collection(ports, principal, collection_id)
    best = await searches.search(
        ports.signals, principal.tenant_id, collection_id, question, most=most, within_s=SEARCH_S
    )
    async with ports.database.tenant(principal.tenant_id) as session:
        rows = {row["id"]: row for row in await collection_sql.chunks(session, [each.chunk_id for each in best])}
    # What was deleted meanwhile is not there any more.
    return [
        await _named(ports, principal, rows[each.chunk_id], of="document_id") | {"score": each.score}
        for each in best
        if each.chunk_id in rows
    ]


async def _described(ports: QueryPorts, principal: Principal, row: Row) -> Row:
    opener = await Opener.of(ports.data_keys, principal.tenant_id, row["id"], row["wrapped"])
    content, _ = opener.show(row["content"], f"collection:{row['id']}")
    return {**row, "description": content and content["description"]}


async def _named(ports: QueryPorts, principal: Principal, row: Row, of: str = "id") -> Row:
    opener = await Opener.of(ports.data_keys, principal.tenant_id, row[of], row["wrapped"])
    content, _ = opener.show(row["content"], f"document:{row[of]}")
    return {**row, "name": content and content["name"]}
