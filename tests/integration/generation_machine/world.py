"""The servers of the state machine: a real Postgres that tells each change of the claims, and a real Valkey."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from uuid import UUID

import asyncpg

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.adapters.redis.connection import client
from backplane.adapters.redis.hub import Hub
from backplane.adapters.redis.reader import RedisStreamReader
from backplane.adapters.redis.signals import RedisSignals
from backplane.adapters.redis.writer import RedisStreamWriter
from tests.conftest import TestDatabase
from tests.integration.generation_machine.clock import StillLoop
from tests.integration.generation_machine.model import Change

_CHANGES = """
CREATE SCHEMA machine;
CREATE TABLE machine.changes (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz, tenant_id uuid, generation_id uuid,
  handed_on integer, attempt integer, worker text, lease_was timestamptz, lease_until timestamptz,
  cancel_requested boolean, terminal bytea);
CREATE FUNCTION machine.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  INSERT INTO machine.changes (at, tenant_id, generation_id, handed_on, attempt, worker, lease_was, lease_until,
                               cancel_requested, terminal)
  VALUES (clock_timestamp(), NEW.tenant_id, NEW.generation_id, NEW.handed_on, NEW.attempt, NEW.worker,
          CASE TG_OP WHEN 'UPDATE' THEN OLD.lease_until END, NEW.lease_until, NEW.cancel_requested, NEW.terminal);
  RETURN NULL;
END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE ON work.claims FOR EACH ROW EXECUTE FUNCTION machine.note();
"""
_NEWS = """
SELECT at, generation_id, handed_on, attempt, worker, lease_was, lease_until, cancel_requested, terminal
FROM machine.changes WHERE tenant_id = $1 ORDER BY id OFFSET $2
"""
_MARK = "machine:mark"
SLOTS = ("a", "b")
"""Workers that run at a time; each has connections of its own."""


class RedisSide:
    """What one process has of Redis. Knows when everything that was published before has arrived."""

    def __init__(self, url: str) -> None:
        self.hub = Hub(url)
        self.signals = RedisSignals(url, self.hub)
        self.writer = RedisStreamWriter(url)
        # So small that a follower who does not read is soon told that it missed something.
        self.reader = RedisStreamReader(url, self.hub, buffered=3)
        self.marked = ""
        self.changed = asyncio.Event()
        self._task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async with self.signals.listen(_MARK) as marks:
            async for mark in marks:
                self.marked = mark
                self.changed.set()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.writer.close()
        await self.signals.close()
        await self.reader.close()
        await self.hub.close()


class World:
    """Servers and connections, shared by all examples; each has a tenant of its own."""

    def __init__(self, database: TestDatabase, redis_url: str) -> None:
        self.loop = StillLoop()
        self._urls = database.owner_url, redis_url
        self.work = PostgresDatabase(database.role_url("worker"), pool_size=10)
        self.queries = PostgresDatabase(database.role_url("query_api"), pool_size=10)
        self.projections = PostgresDatabase(database.role_url("projections"), pool_size=2)
        self.relay = PostgresDatabase(database.role_url("relay"), pool_size=1)
        self.redis = client(redis_url)
        self.owner: asyncpg.Connection[asyncpg.Record]
        self.sides: dict[str, RedisSide] = {}
        self._marks = 0
        self._asking = asyncio.Lock()

    async def open(self) -> None:
        with self.loop.answering():
            self.owner = await asyncpg.connect(self._urls[0])
            await self.owner.execute(_CHANGES)
        self.sides = {name: RedisSide(self._urls[1]) for name in (*SLOTS, "queries")}
        await self.arrived()

    async def close(self) -> None:
        with self.loop.answering():
            for side in self.sides.values():
                await side.close()
            await self.redis.aclose()
            await self.owner.close()
            for database in (self.work, self.queries, self.projections, self.relay):
                await database.close()

    async def execute(self, sql: str, *values: object) -> None:
        """As Postgres' owner."""
        async with self._asking:
            with self.loop.answering():
                await self.owner.execute(sql, *values)

    async def fetch(self, sql: str, *values: object) -> list[asyncpg.Record]:
        """As Postgres' owner."""
        async with self._asking:
            with self.loop.answering():
                return await self.owner.fetch(sql, *values)

    async def changes(self, tenant_id: UUID, skip: int) -> list[Change]:
        """What happened to the claims of a tenant, in order, after the first ``skip`` changes."""
        return [Change(**row) for row in await self.fetch(_NEWS, tenant_id, skip)]

    async def redis_command(self, *command: str) -> None:
        with self.loop.answering():
            await self.redis.execute_command(*command)  # type: ignore[no-untyped-call]

    async def settled(self) -> None:
        """Return once nothing goes on any more, here or on its way through Redis."""
        while True:
            await self.loop.quiet()
            calls = self.loop.calls
            await self.arrived()
            await self.loop.quiet()
            if calls == self.loop.calls:
                return

    async def arrived(self) -> None:
        """Return once all frames are written, and whatever was published before has come to all who listen."""
        with self.loop.waiting():
            for side in self.sides.values():
                await side.writer.flush()
            self._marks += 1
            mark = str(self._marks)
            while any(side.marked != mark for side in self.sides.values()):
                await self.sides["queries"].signals.send(_MARK, mark)
                for side in self.sides.values():
                    with suppress(TimeoutError):
                        async with asyncio.timeout(0.1):
                            while side.marked != mark:
                                side.changed.clear()
                                await side.changed.wait()
