"""Transactions on Postgres. Handlers of a tenant's request can only get the tenant-scoped kind.

DatabaseUnavailable   no answer, no disk, shutting down: try again
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol
from uuid import UUID


class DatabaseUnavailable(Exception):
    """Postgres does not answer or cannot write. The message names the cause without any value of a query."""


Row = dict[str, Any]


class Session(Protocol):
    """One open transaction. SQL is text with ``:name`` parameters; JSON columns take and give Python objects."""

    async def all(self, sql: str, /, **parameters: Any) -> list[Row]: ...

    async def one(self, sql: str, /, **parameters: Any) -> Row | None:
        """The first row, or None."""

    async def execute(self, sql: str, /, **parameters: Any) -> int:
        """The number of rows affected."""

    async def execute_many(self, sql: str, rows: Sequence[Row]) -> None:
        """The same statement for each row, in one round trip where the driver can."""


class TenantSession(Session, Protocol):
    """A transaction that sees one tenant: row-level security shows it no other's rows."""

    @property
    def tenant_id(self) -> UUID: ...


class Database(Protocol):
    def tenant(self, tenant_id: UUID) -> AbstractAsyncContextManager[TenantSession]:
        """Begin; commit when the block ends, roll back when it raises. Raises DatabaseUnavailable."""

    def system(self) -> AbstractAsyncContextManager[Session]:
        """The same across tenants, as far as this process's role may see them. Never for a tenant's request."""

    async def at_once(self, sql: str, /, **parameters: Any) -> list[Row]:
        """``system`` with this one statement in it: one round trip, where beginning and committing take two more."""

    async def ping(self) -> None:
        """Raises DatabaseUnavailable."""

    async def close(self) -> None: ...
