"""The database port on SQLAlchemy and asyncpg."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import lru_cache
from typing import Any
from uuid import UUID

import asyncpg
import orjson
from sqlalchemy import event, make_url, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.sql.elements import TextClause

from backplane.ports.database import DatabaseUnavailable, Row

_CONNECT_TIMEOUT_S = 5.0


def engine(url: str, pool_size: int) -> AsyncEngine:
    """An engine for ``postgresql://…``; JSON columns are Python objects."""
    made = create_async_engine(
        make_url(url).set(drivername="postgresql+asyncpg"),
        pool_size=pool_size,
        max_overflow=0,
        hide_parameters=True,  # values are what people wrote, and error messages are logged
        pool_timeout=_CONNECT_TIMEOUT_S,
        connect_args={"timeout": _CONNECT_TIMEOUT_S},
    )

    @event.listens_for(made.sync_engine, "connect")
    def _decode_json(connection: Any, _: Any) -> None:
        for kind in ("json", "jsonb"):
            connection.run_async(
                lambda driver, kind=kind: driver.set_type_codec(
                    kind, encoder=lambda value: orjson.dumps(value).decode(), decoder=orjson.loads, schema="pg_catalog"
                )
            )

    return made


class PostgresSession:
    """One open transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def all(self, sql: str, /, **parameters: Any) -> list[Row]:
        result = await self._connection.execute(_statement(sql), parameters)
        return [dict(row) for row in result.mappings()]

    async def one(self, sql: str, /, **parameters: Any) -> Row | None:
        result = await self._connection.execute(_statement(sql), parameters)
        row = result.mappings().first()
        return None if row is None else dict(row)

    async def execute(self, sql: str, /, **parameters: Any) -> int:
        result = await self._connection.execute(_statement(sql), parameters)
        return result.rowcount

    async def execute_many(self, sql: str, rows: Sequence[Row]) -> None:
        if rows:
            await self._connection.execute(_statement(sql), list(rows))


class PostgresTenantSession(PostgresSession):
    def __init__(self, connection: AsyncConnection, tenant_id: UUID) -> None:
        super().__init__(connection)
        self.tenant_id = tenant_id


class PostgresDatabase:
    """The database port. One instance a role; what a role may see is decided in Postgres."""

    def __init__(self, url: str, *, pool_size: int) -> None:
        self._engine = engine(url, pool_size)

    @asynccontextmanager
    async def _tenant(self, tenant_id: UUID) -> AsyncIterator[PostgresTenantSession]:
        with unavailable():
            async with self._engine.begin() as connection:
                await connection.execute(_SET_TENANT, {"tenant": str(tenant_id)})
                yield PostgresTenantSession(connection, tenant_id)

    @asynccontextmanager
    async def _system(self) -> AsyncIterator[PostgresSession]:
        with unavailable():
            async with self._engine.begin() as connection:
                yield PostgresSession(connection)

    def tenant(self, tenant_id: UUID) -> AbstractAsyncContextManager[PostgresTenantSession]:
        return self._tenant(tenant_id)

    def system(self) -> AbstractAsyncContextManager[PostgresSession]:
        return self._system()

    async def ping(self) -> None:
        async with self.system() as session:
            await session.one("SELECT 1")

    async def close(self) -> None:
        await self._engine.dispose()


_SET_TENANT = text("SELECT set_config('parley.tenant', :tenant, true)")


@lru_cache(maxsize=512)
def _statement(sql: str) -> TextClause:
    return text(sql)


class unavailable:
    """Turn what the driver says of an unreachable or full server into the port's error, without any value."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        cause = error
        if isinstance(error, DBAPIError):
            cause = error.orig.__cause__ or error.orig if error.orig is not None else error
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
            raise DatabaseUnavailable(f"Postgres is unavailable: {type(cause).__name__}") from error
