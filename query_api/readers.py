"""What may be read, by whom. No HTTP here: other front doors call these functions too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass
from typing import cast
from uuid import UUID

import anyio

from backplane.ports.bus import BusError
from backplane.ports.database import DatabaseUnavailable, Row
from backplane.ports.key_wrapping import WrappingUnavailable
from backplane.ports.token_stream import Cursor, Frame, StreamReader, StreamUnavailable
from backplane.security.content import CannotRead
from backplane.security.principal import Principal
from query_api import message_sql, opening, sql
from query_api.assembly import Step
from query_api.cursors import ConversationCursor
from query_api.following import Follower
from query_api.freshness import NoSuch, ProjectionsLag, found
from query_api.opening import Opener
from query_api.parsing import parsed
from query_api.place import Place
from query_api.record import PostgresRecord, Standing
from query_api.service import QueryPorts
from query_api.watching import Watch

_BEGINS_SOON_S = 0.1

_SEARCHED = 200
"""Conversations whose titles are opened at a time."""


async def generation(ports: QueryPorts, principal: Principal, generation_id: UUID) -> Row:
    """With its ``queue``, a Place, while it is queued.

    Raises NoSuch, ProjectionsLag, BusError, DatabaseUnavailable, WrappingUnavailable.
    """

    async def read() -> Row | None:
        async with ports.database.tenant(principal.tenant_id) as session:
            return await sql.generation(session, sql.Eyes.of(principal), generation_id)

    row = await found(ports, "generation", read)
    opener = await Opener.of(ports.data_keys, principal.tenant_id, row["conversation_id"], row["wrapped"])
    return opening.generation(row, opener) | {"queue": await Place.of(row["place"], ports.room)}


async def answer_before(ports: QueryPorts, principal: Principal, generation_id: UUID) -> UUID | None:
    """The answer that this one, which the principal may see, goes on from; None: none. Raises DatabaseUnavailable."""
    async with ports.database.tenant(principal.tenant_id) as session:
        return await message_sql.answer_before(session, generation_id)


async def follow(
    ports: QueryPorts, principal: Principal, generation_id: UUID, cursor: Cursor | None
) -> AsyncGenerator[Step, None]:
    """Steps beyond ``cursor`` until the generation has ended; close it to stop earlier.

    The read model says who may follow. Until it knows of the generation at all, so does the frame that its worker began
    with, which is often faster; of one that it does know, it alone says who may see it, and whether it was deleted.

    Raises NoSuch, ProjectionsLag, BusError, DatabaseUnavailable, WrappingUnavailable at once; the steps themselves
    outlast every outage. Both raise CannotRead where the finished answer is unreadable.
    """
    steps = _follow(ports, sql.Eyes.of(principal), principal.tenant_id, generation_id, cursor)
    # Once it has begun it lets go of what it holds whatever becomes of it, also where nobody asks for a step.
    await anext(steps)
    return cast(AsyncGenerator[Step, None], steps)


async def _follow(
    ports: QueryPorts, eyes: sql.Eyes, tenant_id: UUID, generation_id: UUID, cursor: Cursor | None
) -> AsyncGenerator[Step | None, None]:
    """None once it is known that these eyes may follow, then the steps."""
    record = PostgresRecord(ports.database, ports.data_keys, tenant_id, generation_id)
    follower = Follower(record, ports.streams, tenant_id, generation_id, cursor, ports.pace)

    async def visible() -> Standing | None:
        standing = await record.standing(eyes, follower.cursor)
        return standing if standing is not None and standing.is_visible else None

    async with AsyncExitStack() as listening:
        standing = await record.standing(eyes, follower.cursor)
        if standing is None:
            begun = await _begun_or_known(ports, eyes, tenant_id, generation_id, visible, listening)
        elif standing.is_visible:
            begun = _Begun.of(standing)
        else:
            begun = _Begun.of(await found(ports, "generation", visible))
        if begun.live is None:
            await listening.aclose()
        yield None
        place = await Place.of(begun.place, ports.room)
        async with (
            aclosing(follower.steps(begun.frames, begun.live, place)) as steps,
            aclosing(_told(ports, record, tenant_id, generation_id, steps)) as told,
        ):
            async for step in told:
                yield step


async def follow_submitted(ports: QueryPorts, tenant_id: UUID, generation_id: UUID) -> AsyncGenerator[Step, None]:
    """As ``follow``, from the beginning, of what the caller submitted a moment ago: nobody is asked who may follow it,
    nor for its place in the queue. It raises nothing at once."""
    record = PostgresRecord(ports.database, ports.data_keys, tenant_id, generation_id)
    follower = Follower(record, ports.streams, tenant_id, generation_id, None, ports.pace)
    async with (
        aclosing(follower.steps(known=())) as steps,
        aclosing(_told(ports, record, tenant_id, generation_id, steps)) as told,
    ):
        async for step in told:
            yield step


async def _told(
    ports: QueryPorts, record: PostgresRecord, tenant_id: UUID, generation_id: UUID, steps: AsyncIterator[Step]
) -> AsyncGenerator[Step, None]:
    with Watch(generation_id) as watch:
        async for step in steps:
            if "json_span" in step.detail:
                step = await parsed(step, ports.streams, record, tenant_id, generation_id)
            watch.told(step)
            yield step


@dataclass(frozen=True, slots=True)
class _Begun:
    """What is known of a generation, and its stream from there on where it is listened to already."""

    frames: list[Frame]
    live: AsyncIterator[Frame | None] | None = None
    place: Row | None = None

    @classmethod
    def of(cls, standing: Standing) -> _Begun:
        return cls(standing.frames, place=standing.place)


async def _begun_or_known(
    ports: QueryPorts,
    eyes: sql.Eyes,
    tenant_id: UUID,
    generation_id: UUID,
    visible: Callable[[], Awaitable[Standing | None]],
    listening: AsyncExitStack,
) -> _Begun:
    """How far the generation has come, once its stream or the read model shows that it is there.

    The stream is listened to until ``listening`` is left. Raises as ``follow``.
    """
    shown: list[_Begun] = []
    refused: list[Exception] = []

    async def read() -> None:
        # A beginning comes by itself, and soon where a worker is free; asking costs the bus and the database.
        await anyio.sleep(_BEGINS_SOON_S)
        try:
            shown.append(_Begun.of(await found(ports, "generation", visible)))
        except (NoSuch, ProjectionsLag, BusError, DatabaseUnavailable, WrappingUnavailable, CannotRead) as error:
            refused.append(error)
        either.cancel_scope.cancel()

    async def see() -> None:
        with suppress(StreamUnavailable):
            live = await listening.enter_async_context(ports.streams.follow(tenant_id, generation_id))
            shown.append(_Begun(await _beginning(ports.streams, eyes, tenant_id, generation_id, live), live))
            either.cancel_scope.cancel()

    # anyio cancels what is slow until it ends; redis-py can lose a single cancellation.
    async with anyio.create_task_group() as either:
        either.start_soon(read)
        either.start_soon(see)
    if not shown:
        raise refused[0]
    return shown[0]


async def _beginning(
    streams: StreamReader, eyes: sql.Eyes, tenant_id: UUID, generation_id: UUID, live: AsyncIterator[Frame | None]
) -> list[Frame]:
    """The frames so far, once one of them is a beginning that these eyes may see. Raises StreamUnavailable."""
    frames: list[Frame] = []
    fresh = await streams.backlog(tenant_id, generation_id)
    while not any(eyes.see(frame.detail) for frame in fresh):
        frames += fresh
        try:
            frame = await anext(live)
        except StopAsyncIteration:
            raise StreamUnavailable("the stream ended before its generation began") from None
        fresh = await streams.backlog(tenant_id, generation_id) if frame is None else [frame]
    return frames + fresh


@dataclass(frozen=True, slots=True)
class ConversationPage:
    conversations: list[Row]
    next: ConversationCursor | None


async def conversations(
    ports: QueryPorts, principal: Principal, *, search: str | None, before: ConversationCursor | None, limit: int
) -> ConversationPage:
    """Newest first. ``search`` is part of the title, upper or lower case.

    Raises DatabaseUnavailable, WrappingUnavailable.
    """
    eyes, most = sql.Eyes.of(principal), _SEARCHED if search else limit + 1
    sought = (search or "").casefold()
    matching: list[Row] = []
    while True:
        async with ports.database.tenant(principal.tenant_id) as session:
            rows = await sql.conversations(session, eyes, before=before, limit=most)
        for row in rows:
            opener = await Opener.of(ports.data_keys, principal.tenant_id, row["id"], row["wrapped"])
            shown = opening.title(row, opener)
            if not search or sought in (shown["title"] or "").casefold():
                matching.append(shown)
        if len(matching) > limit:
            return ConversationPage(matching[:limit], _cursor(matching[limit - 1]))
        if len(rows) < most:
            return ConversationPage(matching, None)
        before = _cursor(rows[-1])


def _cursor(row: Row) -> ConversationCursor:
    return ConversationCursor(row["updated_at"], row["id"])


async def conversation(ports: QueryPorts, principal: Principal, conversation_id: UUID) -> Row:
    """The conversation with its ``messages``.

    Raises NoSuch, ProjectionsLag, BusError, DatabaseUnavailable, WrappingUnavailable.
    """

    async def read() -> Row | None:
        async with ports.database.tenant(principal.tenant_id) as session:
            row = await sql.conversation(session, sql.Eyes.of(principal), conversation_id)
            return row and {**row, "messages": await message_sql.messages(session, conversation_id)}

    row = await found(ports, "conversation", read)
    opener = await Opener.of(ports.data_keys, principal.tenant_id, row["id"], row["wrapped"])
    openers = {row["id"]: opener}
    for message in row["messages"]:
        at = message["conversation_id"]
        if at not in openers:
            openers[at] = await Opener.of(ports.data_keys, principal.tenant_id, at, message["wrapped"])
    # Hundreds of messages take tens of milliseconds, for which no stream may wait.
    messages = await asyncio.to_thread(opening.messages, row["messages"], openers)
    return opening.title(row, opener) | {"messages": messages, "summary": opening.summary(row, opener)}


async def provider_keys(ports: QueryPorts, principal: Principal) -> list[Row]:
    """The tenant's own. Raises DatabaseUnavailable."""
    async with ports.database.tenant(principal.tenant_id) as session:
        return await sql.provider_keys(session)
