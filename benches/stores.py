"""What Postgres and Redis hold and were asked: bytes, statements, commands."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import redis.asyncio

from backplane.ports.database import Database
from backplane.settings import Settings
from backplane.wiring.embedded import completed, owner_database

_BYTES = """
SELECT n.nspname AS name, sum(pg_total_relation_size(c.oid))::bigint AS bytes
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND n.nspname NOT LIKE 'pg_%' AND n.nspname NOT IN ('information_schema', 'public')
GROUP BY n.nspname
"""
_WRITTEN = """
SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint AS wal,
       (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()) AS commits
"""
WAL = "Postgres: WAL, bytes"
COMMITS = "Postgres: transactions"
REDIS_BYTES = "Redis: memory, bytes"
REDIS_COMMANDS = "Redis: commands"


def tables_of(schema: str) -> str:
    """The name of the figure: bytes of the tables of ``schema``, indexes included."""
    return f"Postgres: tables of {schema}, bytes"


@dataclass(frozen=True, slots=True)
class Stores:
    """The servers of a running installation, as its operator sees them."""

    _database: Database
    _redis: redis.asyncio.Redis

    async def read(self) -> dict[str, float]:
        """Figures by name; all but the memory only ever grow. Raises DatabaseUnavailable, redis.RedisError."""
        sizes = await self._database.at_once(_BYTES)
        (written,) = await self._database.at_once(_WRITTEN)
        memory, stats = await self._redis.info("memory"), await self._redis.info("stats")
        return {
            **{tables_of(row["name"]): float(row["bytes"]) for row in sizes},
            WAL: float(written["wal"]),
            COMMITS: float(written["commits"]),
            REDIS_BYTES: float(memory["used_memory"]),
            REDIS_COMMANDS: float(stats["total_commands_processed"]),
        }


@asynccontextmanager
async def stores_of(settings: Settings) -> AsyncIterator[Stores]:
    """Raises EmbeddedServerError."""
    url = completed(settings).redis.url
    assert url is not None, "a Parley that runs has a Redis"
    database = owner_database(settings)
    try:
        async with redis.asyncio.Redis.from_url(url.get_secret_value()) as client:
            yield Stores(database, client)
    finally:
        await database.close()
