"""Fresh tables for a rebuild, made by the migrations' own DDL, and swapping them in."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg

from backplane.adapters.postgres.database import unavailable
from backplane.adapters.postgres.migrations.ddl import READ_MODELS, create_read_model

_ONE_AT_A_TIME = 0x72656275696C64  # "rebuild", as an advisory lock
_PREFIX = "rebuild_"
_LOCK_TIMEOUT = "1s"


class RebuildRunning(Exception):
    """Another rebuild runs in this database."""


class ShadowDiffers(Exception):
    """The rebuilt table is not made like the live one; swapping it in would change what roles may see."""


class PostgresShadowTables:
    """One rebuild's schema of fresh tables. Made by ``open_shadow_tables``."""

    def __init__(self, connection: asyncpg.Connection, model: str) -> None:
        self._connection = connection
        self.schema = f"{_PREFIX}{model}_{secrets.token_hex(4)}"

    async def create(self, models: Sequence[str]) -> None:
        """Make the schema with empty tables of ``models``. Raises LookupError where no migration makes one."""
        async with self._connection.transaction():
            await self._connection.execute(f"CREATE SCHEMA {self.schema}")
            for model in models:
                await create_read_model(self._connection, model, self.schema)

    async def analyze(self, table: str) -> None:
        """Let the planner know the rebuilt table before queries meet it."""
        await self._connection.execute(f"ANALYZE {self.schema}.{table}")

    @asynccontextmanager
    async def holding(self, lock: int) -> AsyncIterator[None]:
        """A transaction that holds the advisory lock ``lock`` alone, so that no projector writes."""
        async with self._connection.transaction():
            await self._connection.execute("SELECT pg_advisory_xact_lock($1)", lock)
            yield

    async def swap(self, table: str) -> bool:
        """Put the rebuilt table in the place of the live one, within ``holding``. The old one is dropped.

        False where a long read keeps the live table busy; then nothing was changed. Reads that come later queue
        behind this one, so it waits only for a moment. Raises ShadowDiffers.
        """
        try:
            async with self._connection.transaction():
                await self._connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
                await self._connection.execute(f"LOCK TABLE {READ_MODELS}.{table} IN ACCESS EXCLUSIVE MODE")
        except asyncpg.LockNotAvailableError:
            return False
        live, rebuilt = await self._described(READ_MODELS, table), await self._described(self.schema, table)
        differing = [aspect for aspect in live if live[aspect] != rebuilt[aspect]]
        if differing:
            raise ShadowDiffers(
                f"{READ_MODELS}.{table} has other {' and '.join(differing)} than the migrations give it; "
                "make them equal (with a migration, or by undoing what was changed by hand), then rebuild again"
            )
        await self._connection.execute(f"DROP TABLE {READ_MODELS}.{table}")
        await self._connection.execute(f"ALTER TABLE {self.schema}.{table} SET SCHEMA {READ_MODELS}")
        return True

    async def _described(self, schema: str, table: str) -> dict[str, list[str]]:
        row = await self._connection.fetchrow(_DESCRIBE, schema, table)
        assert row is not None
        return {aspect: row[aspect] or [] for aspect in row.keys()}  # noqa: SIM118 - a record iterates over values


@asynccontextmanager
async def open_shadow_tables(owner_url: str, model: str) -> AsyncIterator[PostgresShadowTables]:
    """Begin a rebuild: one at a time in a database, and what killed ones left behind is removed first.

    Its own schema goes when the block ends. Raises RebuildRunning, and DatabaseUnavailable, also from the block.
    """
    with unavailable():
        async with _connected(owner_url) as connection:
            if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _ONE_AT_A_TIME):
                raise RebuildRunning("another rebuild runs in this database; wait for it to end")
            for left in await connection.fetch(_LEFT_BEHIND, _PREFIX):
                await _drop(connection, left["nspname"])
            shadow = PostgresShadowTables(connection, model)
            try:
                yield shadow
            finally:
                if not connection.is_closed():
                    await _drop(connection, shadow.schema)


@asynccontextmanager
async def _connected(owner_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(owner_url, timeout=5)
    try:
        yield connection
    finally:
        await connection.close()


async def _drop(connection: asyncpg.Connection, schema: str) -> None:
    # A plain DROP SCHEMA would say with a NOTICE what went with it.
    await connection.execute("SET client_min_messages = warning")
    await connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


_LEFT_BEHIND = "SELECT nspname FROM pg_namespace WHERE starts_with(nspname, $1)"

_DESCRIBE = """
SELECT
  (SELECT array_agg(concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                              pg_get_expr(d.adbin, d.adrelid)) ORDER BY a.attnum)
     FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
  (SELECT array_agg(o.conname || ' ' || pg_get_constraintdef(o.oid) ORDER BY o.conname)
     FROM pg_constraint o WHERE o.conrelid = c.oid) AS constraints,
  (SELECT array_agg(replace(pg_get_indexdef(i.indexrelid), ' ON ' || n.nspname || '.', ' ON ') ORDER BY x.relname)
     FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid WHERE i.indrelid = c.oid) AS indexes,
  (SELECT array_agg(concat_ws(' ', p.polname, p.polcmd, p.polpermissive,
                              (SELECT array_agg(CASE WHEN r = 0 THEN 'public' ELSE r::regrole::text END ORDER BY r)
                                 FROM unnest(p.polroles) r),
                              pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
                    ORDER BY p.polname)
     FROM pg_policy p WHERE p.polrelid = c.oid) AS policies,
  ARRAY[c.relrowsecurity::text, c.relforcerowsecurity::text] AS "row-level security",
  (SELECT array_agg(concat_ws(' ', g.grantee, g.privilege_type, g.is_grantable) ORDER BY g.grantee, g.privilege_type)
     FROM aclexplode(c.relacl) g) AS grants,
  ARRAY[pg_get_userbyid(c.relowner)::text] AS owner
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = $2
"""
