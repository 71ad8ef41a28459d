"""The bus's connections to Postgres, and what their errors mean to the port."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from backplane.adapters.postgres.outage import why
from backplane.ports.bus import BusUnavailable, UnknownTopic

_SETTINGS = {
    "application_name": "parley bus",
    # A publish is confirmed only when it is durable, whatever the server's default is.
    "synchronous_commit": "on",
    # `bus.publish` looks at the head after it has locked it.
    "default_transaction_isolation": "read committed",
    # All statements are look-ups by index. A plan made while a table was empty must not scan it when it is full, and
    # planning anew for every call costs more than the calls.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}

_UNAVAILABLE = (
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,  # a full disk, no connections or memory left
    asyncpg.OperatorInterventionError,
    asyncpg.TransactionRollbackError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.PostgresSystemError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    TimeoutError,
    OSError,
)
_NO_SCHEMA = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedFunctionError,
    asyncpg.UndefinedColumnError,
    asyncpg.InvalidSchemaNameError,
)


@contextmanager
def bus_errors() -> Iterator[None]:
    """Raise the port's errors for what the driver says. Their text never has a value of a query."""
    try:
        yield
    except _UNAVAILABLE as error:
        # asyncpg's word for a value of the wrong type: a bug, no outage.
        if isinstance(error, ValueError) and not isinstance(error, (asyncpg.ClientConfigurationError, ssl.SSLError)):
            raise
        raise BusUnavailable(f"the bus's Postgres is unavailable: {why(error)}; try again") from error
    except _NO_SCHEMA as error:
        raise UnknownTopic("this database has no bus of this release: run `parley migrate`") from error


class Connections:
    """A pool for statements, opened at the first one. No transaction outlives a call."""

    def __init__(self, url: str, *, pool_size: int, timeout_s: float) -> None:
        self._url = url
        self._pool_size = pool_size
        self.timeout_s = timeout_s
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    async def fetch(self, sql: str, *values: Any) -> list[asyncpg.Record]:
        """Run one statement in a transaction of its own. Raises BusUnavailable, UnknownTopic."""
        async with self.connection() as connection:
            return await connection.fetch(sql, *values)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[PoolConnectionProxy[asyncpg.Record]]:
        """A connection for a few statements, for as long as the time limit of one. Raises as ``fetch`` does."""
        with bus_errors():
            async with asyncio.timeout(self.timeout_s):
                async with (await self._opened()).acquire() as connection:
                    yield connection

    async def dedicated(self) -> asyncpg.Connection[asyncpg.Record]:
        """A connection outside the pool, to listen on. Raises BusUnavailable."""
        with bus_errors():
            return await asyncpg.connect(self._url, server_settings=_SETTINGS, timeout=self.timeout_s)

    async def close(self) -> None:
        self._closed = True
        if self._pool is not None:
            try:
                async with asyncio.timeout(self.timeout_s):
                    await self._pool.close()
            except TimeoutError:
                self._pool.terminate()

    async def _opened(self) -> asyncpg.Pool[asyncpg.Record]:
        if self._closed:
            raise BusUnavailable("this bus was closed")
        if self._pool is None:
            async with self._opening:
                if self._pool is None:
                    self._pool = await asyncpg.create_pool(
                        self._url,
                        min_size=0,
                        max_size=self._pool_size,
                        server_settings=_SETTINGS,
                        timeout=self.timeout_s,
                        reset=_keep_as_is,
                    )
        return self._pool


async def _keep_as_is(_connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Statements here leave nothing behind on a connection, so giving it back needs no round trip."""
