"""What may be read, by whom. No HTTP here: other front doors call these functions too."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from backplane.ports.database import Row
from backplane.ports.token_stream import Cursor
from backplane.security.principal import Principal
from query_api import sql
from query_api.assembly import Step
from query_api.cursors import ConversationCursor
from query_api.following import Follower
from query_api.freshness import found
from query_api.record import PostgresRecord
from query_api.service import QueryPorts


async def generation(ports: QueryPorts, principal: Principal, generation_id: UUID) -> Row:
    """Raises NoSuch, ProjectionsLag, BusError, DatabaseUnavailable."""

    async def read() -> Row | None:
        async with ports.database.tenant(principal.tenant_id) as session:
            return await sql.generation(session, sql.Eyes.of(principal), generation_id)

    return await found(ports, "generation", read)


async def follow(
    ports: QueryPorts, principal: Principal, generation_id: UUID, cursor: Cursor | None
) -> AsyncGenerator[Step, None]:
    """Steps beyond ``cursor`` until the generation has ended; close it to stop earlier.

    Raises NoSuch, ProjectionsLag, BusError, DatabaseUnavailable at once; the steps themselves outlast every outage.
    """
    await generation(ports, principal, generation_id)
    record = PostgresRecord(ports.database, principal.tenant_id, generation_id)
    return Follower(record, ports.streams, principal.tenant_id, generation_id, cursor, ports.pace).steps()


@dataclass(frozen=True, slots=True)
class ConversationPage:
    conversations: list[Row]
    next: ConversationCursor | None


async def conversations(
    ports: QueryPorts, principal: Principal, *, search: str | None, before: ConversationCursor | None, limit: int
) -> ConversationPage:
    """Newest first. Raises DatabaseUnavailable."""
    async with ports.database.tenant(principal.tenant_id) as session:
        rows = await sql.conversations(session, sql.Eyes.of(principal), search=search, before=before, limit=limit + 1)
    page = rows[:limit]
    more = len(rows) > limit
    return ConversationPage(page, ConversationCursor(page[-1]["updated_at"], page[-1]["id"]) if more else None)


async def conversation(ports: QueryPorts, principal: Principal, conversation_id: UUID) -> Row:
    """The conversation with its ``messages``. Raises NoSuch, ProjectionsLag, BusError, DatabaseUnavailable."""

    async def read() -> Row | None:
        async with ports.database.tenant(principal.tenant_id) as session:
            row = await sql.conversation(session, sql.Eyes.of(principal), conversation_id)
            return row and {**row, "messages": await sql.messages(session, conversation_id)}

    return await found(ports, "conversation", read)


async def usage(
    ports: QueryPorts, principal: Principal, *, since: datetime, until: datetime, group_by: sql.Grouping
) -> list[Row]:
    """Raises DatabaseUnavailable."""
    async with ports.database.tenant(principal.tenant_id) as session:
        return await sql.usage(session, sql.Eyes.of(principal), since=since, until=until, group_by=group_by)
