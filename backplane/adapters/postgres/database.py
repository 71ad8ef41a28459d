"""The database port on SQLAlchemy and asyncpg."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import lru_cache
from typing import Any
from uuid import UUID

import asyncpg
import orjson
from sqlalchemy import PoolProxiedConnection, event, make_url, text
from sqlalchemy.exc import DBAPIError, DisconnectionError, EmulatedDBAPIException, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.sql.compiler import SQLCompiler

from backplane.adapters.postgres.outage import why
from backplane.ports.database import DatabaseUnavailable, Row

_CONNECT_TIMEOUT_S = 5.0
_UNDO_TIMEOUT_S = 5.0


def engine(url: str, pool_size: int) -> AsyncEngine:
    """An engine for ``postgresql://…``; JSON columns are Python objects."""
    # asyncpg reads the URL itself, as it does for the bus: SQLAlchemy hands on neither sslmode nor sslrootcert.
    dsn = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    made = create_async_engine(
        "postgresql+asyncpg://",
        pool_size=pool_size,
        max_overflow=0,
        hide_parameters=True,  # values are what people wrote, and error messages are logged
        pool_timeout=_CONNECT_TIMEOUT_S,
        connect_args={"dsn": dsn, "timeout": _CONNECT_TIMEOUT_S},
    )

    @event.listens_for(made.sync_engine, "connect")
    def _decode_json(connection: Any, _: Any) -> None:
        for kind in ("json", "jsonb"):
            connection.run_async(
                lambda driver, kind=kind: driver.set_type_codec(
                    kind, encoder=lambda value: orjson.dumps(value).decode(), decoder=orjson.loads, schema="pg_catalog"
                )
            )

    @event.listens_for(made.sync_engine, "checkout")
    def _drop_closed(connection: Any, _: Any, __: Any) -> None:
        if connection.driver_connection.is_closed():
            raise DisconnectionError("closed while it was in the pool")

    return made


class PostgresSession:
    """One open transaction.

    SQLAlchemy pools the connections and reads the ``:name`` parameters of a statement, once; asyncpg runs it.
    """

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def all(self, sql: str, /, **parameters: Any) -> list[Row]:
        statement, names = _compiled(sql)
        return [dict(row) for row in await self._connection.fetch(statement, *(parameters[name] for name in names))]

    async def one(self, sql: str, /, **parameters: Any) -> Row | None:
        statement, names = _compiled(sql)
        row = await self._connection.fetchrow(statement, *(parameters[name] for name in names))
        return None if row is None else dict(row)

    async def execute(self, sql: str, /, **parameters: Any) -> int:
        statement, names = _compiled(sql)
        status = await self._connection.execute(statement, *(parameters[name] for name in names))
        affected = status.rpartition(" ")[2]
        return int(affected) if affected.isdecimal() else 0

    async def execute_many(self, sql: str, rows: Sequence[Row]) -> None:
        if rows:
            statement, names = _compiled(sql)
            await self._connection.executemany(statement, [[row[name] for name in names] for row in rows])


class PostgresTenantSession(PostgresSession):
    def __init__(self, connection: asyncpg.Connection, tenant_id: UUID) -> None:
        super().__init__(connection)
        self.tenant_id = tenant_id


class PostgresDatabase:
    """The database port. One instance a role; what a role may see is decided in Postgres."""

    def __init__(self, url: str, *, pool_size: int) -> None:
        self._engine = engine(url, pool_size)
        self._undoing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def _tenant(self, tenant_id: UUID) -> AsyncIterator[PostgresTenantSession]:
        if not isinstance(tenant_id, UUID):
            raise TypeError(f"a tenant's id is a UUID, not {type(tenant_id).__name__}")
        # One round trip; the simple protocol takes no parameters, and a UUID's text needs no quoting.
        begin = f"BEGIN; SELECT set_config('parley.tenant', '{tenant_id}', true)"
        async with self._transaction(begin) as connection:
            yield PostgresTenantSession(connection, tenant_id)

    @asynccontextmanager
    async def _system(self) -> AsyncIterator[PostgresSession]:
        async with self._transaction("BEGIN") as connection:
            yield PostgresSession(connection)

    @asynccontextmanager
    async def _transaction(self, begin: str) -> AsyncIterator[asyncpg.Connection]:
        async with self._connection() as connection:
            await connection.execute(begin)
            yield connection
            if await connection.execute("COMMIT") != "COMMIT":
                raise LostTransaction("a statement failed and its error was dropped, so nothing was committed")

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection]:
        with unavailable():
            pooled = await self._engine.raw_connection()
            connection: asyncpg.Connection = pooled.driver_connection  # type: ignore[assignment]
            try:
                yield connection
            except BaseException:
                undoing = asyncio.create_task(_undo(pooled, connection))
                self._undoing.add(undoing)
                undoing.add_done_callback(self._undoing.discard)
                # Who is cancelled again stops waiting here; the connection is still given back clean, or dropped.
                await asyncio.shield(undoing)
                raise
            pooled.close()

    def tenant(self, tenant_id: UUID) -> AbstractAsyncContextManager[PostgresTenantSession]:
        return self._tenant(tenant_id)

    def system(self) -> AbstractAsyncContextManager[PostgresSession]:
        return self._system()

    async def at_once(self, sql: str, /, **parameters: Any) -> list[Row]:
        # Postgres makes a transaction of a statement that stands alone.
        async with self._connection() as connection:
            return await PostgresSession(connection).all(sql, **parameters)

    async def ping(self) -> None:
        await self.at_once("SELECT 1")

    async def close(self) -> None:
        await asyncio.gather(*self._undoing)
        await self._engine.dispose()


class LostTransaction(Exception):
    """A transaction ended well for its caller, and Postgres had given it up before."""


async def _undo(pooled: PoolProxiedConnection, connection: asyncpg.Connection) -> None:
    """Give a connection back without its transaction, or drop it."""
    try:
        # First waits until a statement that was cancelled has ended.
        await connection.execute("ROLLBACK", timeout=_UNDO_TIMEOUT_S)
    except Exception:
        pooled.invalidate()
    pooled.close()


_DIALECT = make_url("postgresql+asyncpg://").get_dialect()()


@lru_cache(maxsize=512)
def _compiled(sql: str) -> tuple[str, list[str]]:
    """The statement as asyncpg takes it, and the names of its parameters in their order."""
    compiled = text(sql).compile(dialect=_DIALECT)
    assert isinstance(compiled, SQLCompiler)
    return str(compiled), list(compiled.positiontup or ())


class unavailable:
    """Turn what the driver says of an unreachable or full server into the port's error, without any value."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        cause: BaseException | None = error
        if isinstance(error, DBAPIError):
            cause = error.orig.__cause__ or error.orig if error.orig is not None else error
        elif isinstance(error, EmulatedDBAPIException):  # what the pool raises where it cannot connect
            cause = error.__cause__
        if isinstance(
            error, (InterfaceError, OperationalError, PoolTimeout, TimeoutError, ConnectionError, OSError)
        ) or isinstance(
            cause,
            (
                asyncpg.PostgresConnectionError,
                asyncpg.InsufficientResourcesError,
                asyncpg.OperatorInterventionError,
                asyncpg.ReadOnlySQLTransactionError,
                asyncpg.InvalidAuthorizationSpecificationError,
                asyncpg.PostgresSystemError,
                asyncpg.InterfaceError,
                asyncpg.InternalClientError,  # a query that meets the server's goodbye half read
                ConnectionError,
                TimeoutError,
                OSError,
            ),
        ):
            raise DatabaseUnavailable(f"Postgres is unavailable: {why(cause or error)}") from error
