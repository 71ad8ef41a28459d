"""What may be read, by whom. No HTTP here: other front doors call these functions too."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import anyio

from backplane.ports.bus import BusError
from backplane.ports.database import DatabaseUnavailable, Row
from backplane.ports.token_stream import Cursor, StreamReader, StreamUnavailable
from backplane.security.principal import Principal
from query_api import sql
from query_api.assembly import Step
from query_api.cursors import ConversationCursor
from query_api.following import Follower
from query_api.freshness import NoSuch, ProjectionsLag, found
from query_api.record import PostgresRecord, Standing
from query_api.service import QueryPorts

_BEGINS_SOON_S = 0.1


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

    The read model says who may follow. Until it knows of the generation at all, so does the frame that its worker began
    with, which is often faster; of one that it does know, it alone says who may see it, and whether it was deleted.

    Raises NoSuch, ProjectionsLag, BusError, DatabaseUnavailable at once; the steps themselves outlast every outage.
    """
    eyes = sql.Eyes.of(principal)
    record = PostgresRecord(ports.database, principal.tenant_id, generation_id)
    follower = Follower(record, ports.streams, principal.tenant_id, generation_id, cursor, ports.pace)

    async def visible() -> Standing | None:
        standing = await record.standing(eyes, follower.cursor)
        return standing if standing is not None and standing.is_visible else None

    standing = await record.standing(eyes, follower.cursor)
    if standing is None:
        standing = await _begun_or_known(ports, eyes, principal.tenant_id, generation_id, visible)
    elif not standing.is_visible:
        standing = await found(ports, "generation", visible)
    return follower.steps(standing.frames)


async def _begun_or_known(
    ports: QueryPorts,
    eyes: sql.Eyes,
    tenant_id: UUID,
    generation_id: UUID,
    visible: Callable[[], Awaitable[Standing | None]],
) -> Standing:
    """How far the generation has come, once its stream or the read model shows that it is there.

    Raises as ``follow``.
    """
    shown: list[Standing] = []
    refused: list[Exception] = []

    async def read() -> None:
        # A beginning comes by itself, and soon where a worker is free; asking costs the bus and the database.
        await anyio.sleep(_BEGINS_SOON_S)
        try:
            shown.append(await found(ports, "generation", visible))
        except (NoSuch, ProjectionsLag, BusError, DatabaseUnavailable) as error:
            refused.append(error)
        either.cancel_scope.cancel()

    async def see() -> None:
        with suppress(StreamUnavailable):
            await _seen_to_begin(ports.streams, eyes, tenant_id, generation_id)
            shown.append(Standing(is_visible=True, frames=[]))
            either.cancel_scope.cancel()

    # anyio cancels what is slow until it ends; redis-py can lose a single cancellation.
    async with anyio.create_task_group() as either:
        either.start_soon(read)
        either.start_soon(see)
    if not shown:
        raise refused[0]
    return shown[0]


async def _seen_to_begin(streams: StreamReader, eyes: sql.Eyes, tenant_id: UUID, generation_id: UUID) -> None:
    """Return once the stream holds a beginning that these eyes may see. Raises StreamUnavailable."""
    async with streams.follow(tenant_id, generation_id) as live:
        for frame in await streams.backlog(tenant_id, generation_id):
            if eyes.see(frame.detail):
                return
        async for live_frame in live:
            if live_frame is not None and eyes.see(live_frame.detail):
                return
    raise StreamUnavailable("the stream ended before its generation began")


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
