"""The real adapters, as one process has them: gone when it is dead, and known to be asked while they are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from uuid import UUID

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.adapters.redis.reader import RedisStreamReader
from backplane.adapters.redis.signals import RedisSignals
from backplane.adapters.redis.writer import RedisStreamWriter
from backplane.ports.database import DatabaseUnavailable, Row, Session, TenantSession
from backplane.ports.key_room import Shut
from backplane.ports.token_stream import Cursor, Frame
from tests.integration.generation_machine.clock import StillLoop
from tests.integration.generation_machine.process import Place, Process


class ProcessDatabase:
    """The ``Database`` port on a real Postgres."""

    def __init__(self, database: PostgresDatabase, process: Process, loop: StillLoop) -> None:
        self._database, self._process, self._loop = database, process, loop

    @asynccontextmanager
    async def tenant(self, tenant_id: UUID) -> AsyncIterator[TenantSession]:
        call = self._process.call(Place.DATABASE, DatabaseUnavailable)
        async with call, self._loop.turn(), self._database.tenant(tenant_id) as session:
            yield session

    @asynccontextmanager
    async def system(self) -> AsyncIterator[Session]:
        call = self._process.call(Place.DATABASE, DatabaseUnavailable)
        async with call, self._loop.turn(), self._database.system() as session:
            yield session

    async def at_once(self, sql: str, /, **parameters: Any) -> list[Row]:
        call = self._process.call(Place.DATABASE, DatabaseUnavailable)
        async with call, self._loop.turn():
            return await self._database.at_once(sql, **parameters)

    async def ping(self) -> None:
        await self._database.ping()

    async def close(self) -> None:
        """The pool is everybody's."""


class NoKeys:
    """The ``RoomView`` of pools that ask no provider."""

    async def shut(self, ring: str) -> Shut | None:
        return None


class ProcessStreams:
    """The ``StreamWriter`` port on a real Valkey. ``witness`` sees each frame."""

    def __init__(
        self, writer: RedisStreamWriter, process: Process, loop: StillLoop, witness: Callable[[UUID, Frame], None]
    ) -> None:
        self._writer, self._process, self._loop, self._witness = writer, process, loop, witness

    def append(self, tenant_id: UUID, generation_id: UUID, frame: Frame) -> None:
        if not self._process.dead:
            self._loop.calls += 1
            self._witness(generation_id, frame)
            self._writer.append(tenant_id, generation_id, frame)

    async def flush(self) -> None:
        if not self._process.dead:
            await self._writer.flush()

    async def last(self, tenant_id: UUID, generation_id: UUID) -> Cursor | None:
        self._process.check()
        async with self._loop.turn():
            return await self._writer.last(tenant_id, generation_id)


class ProcessSignals:
    """The ``Signals`` port on a real Valkey."""

    def __init__(self, signals: RedisSignals, process: Process, loop: StillLoop) -> None:
        self._signals, self._process, self._loop = signals, process, loop

    async def send(self, channel: str, message: str) -> None:
        self._process.check()
        async with self._loop.turn():
            await self._signals.send(channel, message)

    def listen(self, channel: str) -> AbstractAsyncContextManager[AsyncIterator[str]]:
        return self._signals.listen(channel)


class Streams:
    """The ``StreamReader`` port on a real Valkey."""

    def __init__(self, reader: RedisStreamReader, loop: StillLoop) -> None:
        self._reader, self._loop = reader, loop

    async def backlog(self, tenant_id: UUID, generation_id: UUID) -> list[Frame]:
        async with self._loop.turn():
            return await self._reader.backlog(tenant_id, generation_id)

    @asynccontextmanager
    async def follow(self, tenant_id: UUID, generation_id: UUID) -> AsyncIterator[AsyncIterator[Frame | None]]:
        following = self._reader.follow(tenant_id, generation_id)
        with self._loop.waiting():
            live = await following.__aenter__()
        try:
            yield live
        finally:
            await following.__aexit__(None, None, None)
