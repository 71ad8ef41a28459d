"""Transactions of the database port: what they see, how they end, and that connections are given back clean."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from backplane.adapters.postgres.database import LostTransaction, PostgresDatabase
from backplane.ports.database import DatabaseUnavailable
from backplane.ports.identifiers import new_id
from tests.conftest import TestDatabase

_TENANT = "SELECT current_setting('parley.tenant', true) AS tenant"
_SLEEPERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_sleep(6%'"


@pytest.fixture
async def one_connection(database: TestDatabase) -> AsyncIterator[PostgresDatabase]:
    adapter = PostgresDatabase(database.role_url("command_api"), pool_size=1)
    yield adapter
    await adapter.close()


@pytest.fixture
async def owner(database: TestDatabase) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database.owner_url)
    yield connection
    await connection.close()


async def is_clean(database: PostgresDatabase) -> bool:
    """Whether the pool's connection begins a transaction of its own: one that was left open has a tenant still."""
    async with database.system() as session:
        row = await session.one("SELECT coalesce(current_setting('parley.tenant', true), '') AS tenant")
    assert row is not None
    return bool(row["tenant"] == "")


async def until(owner: asyncpg.Connection, sleepers: int) -> None:
    async with asyncio.timeout(10):
        while await owner.fetchval(_SLEEPERS) != sleepers + 1:  # and the question itself
            await asyncio.sleep(0.005)


async def test_a_transaction_sees_its_tenant_and_leaves_no_trace(one_connection: PostgresDatabase) -> None:
    for tenant in (new_id(), new_id()):
        async with one_connection.tenant(tenant) as session:
            assert await session.one(_TENANT) == {"tenant": str(tenant)}
            assert session.tenant_id == tenant
        assert await is_clean(one_connection)


async def test_only_a_uuid_can_be_a_tenant(one_connection: PostgresDatabase) -> None:
    wrong: Any = f"{new_id()}', true); SELECT set_config('parley.tenant', '{UUID(int=0)}"
    with pytest.raises(TypeError, match="a tenant's id is a UUID, not str"):
        async with one_connection.tenant(wrong):
            raise AssertionError("entered")


async def test_parameters_go_by_name_as_often_as_they_are_named(one_connection: PostgresDatabase) -> None:
    async with one_connection.system() as session:
        row = await session.one("SELECT CAST(:b AS text) || :a || :b AS text, 1::text AS one", a="a", b="b")
        assert row == {"text": "bab", "one": "1"}
        assert await session.all("SELECT n FROM unnest(CAST(:some AS int[])) n", some=[2, 1]) == [{"n": 2}, {"n": 1}]
        assert await session.one("SELECT CAST(:facts AS jsonb) AS facts", facts={"deep": [1]}) == {
            "facts": {"deep": [1]}
        }


async def test_it_tells_how_many_rows_it_touched(one_connection: PostgresDatabase) -> None:
    tenant = new_id()
    insert = "INSERT INTO control.tenants (tenant_id, name) VALUES (:id, :name) ON CONFLICT DO NOTHING"
    async with one_connection.tenant(tenant) as session:
        assert await session.execute(insert, id=tenant, name="acme") == 1
        assert await session.execute(insert, id=tenant, name="acme") == 0
        await session.execute_many("SELECT CAST(:a AS int) + :b", [{"a": 1, "b": 2}, {"b": 3, "a": 4}])
        await session.execute_many("no statement at all", [])


async def test_a_statement_by_itself_is_committed(database: TestDatabase, owner: asyncpg.Connection) -> None:
    adapter = PostgresDatabase(database.owner_url, pool_size=1)
    tenant = new_id()
    insert = "INSERT INTO control.tenants (tenant_id, name) VALUES (:id, 'acme') RETURNING name"
    assert await adapter.at_once(insert, id=tenant) == [{"name": "acme"}]
    assert await owner.fetchval("SELECT name FROM control.tenants WHERE tenant_id = $1", tenant) == "acme"
    with pytest.raises(asyncpg.UniqueViolationError):
        await adapter.at_once(insert, id=tenant)
    assert await is_clean(adapter)
    await adapter.close()


async def test_what_raises_is_undone(one_connection: PostgresDatabase) -> None:
    tenant = new_id()
    with pytest.raises(LookupError):
        async with one_connection.tenant(tenant) as session:
            await session.execute("INSERT INTO control.tenants (tenant_id, name) VALUES (:id, 'acme')", id=tenant)
            raise LookupError
    assert await is_clean(one_connection)
    async with one_connection.tenant(tenant) as session:
        assert await session.all("SELECT * FROM control.tenants") == []


async def test_a_statement_that_fails_is_undone(one_connection: PostgresDatabase) -> None:
    with pytest.raises(asyncpg.DivisionByZeroError):
        async with one_connection.tenant(new_id()) as session:
            await session.one("SELECT 1 / 0")
    assert await is_clean(one_connection)


async def test_a_failure_that_nobody_minded_is_not_taken_for_a_commit(one_connection: PostgresDatabase) -> None:
    with pytest.raises(LostTransaction):
        async with one_connection.tenant(new_id()) as session:
            with pytest.raises(asyncpg.DivisionByZeroError):
                await session.one("SELECT 1 / 0")
    assert await is_clean(one_connection)


async def test_a_cancelled_statement_leaves_its_connection_clean(
    one_connection: PostgresDatabase, owner: asyncpg.Connection
) -> None:
    async def sleep() -> None:
        async with one_connection.tenant(new_id()) as session:
            await session.one("SELECT pg_sleep(60)")

    for _ in range(3):
        sleeping = asyncio.create_task(sleep())
        await until(owner, sleepers=1)
        sleeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeping
        assert await is_clean(one_connection)
        await until(owner, sleepers=0)


async def test_a_cancelled_statement_by_itself_leaves_its_connection_clean(
    one_connection: PostgresDatabase, owner: asyncpg.Connection
) -> None:
    for _ in range(3):
        sleeping = asyncio.create_task(one_connection.at_once("SELECT pg_sleep(60)"))
        await until(owner, sleepers=1)
        sleeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeping
        assert await one_connection.at_once("SELECT 1 AS one") == [{"one": 1}]
        await until(owner, sleepers=0)


async def test_who_is_cancelled_twice_leaves_the_connection_clean_too(
    one_connection: PostgresDatabase, owner: asyncpg.Connection
) -> None:
    async def sleep() -> None:
        async with one_connection.tenant(new_id()) as session:
            await session.one("SELECT pg_sleep(60)")

    sleeping = asyncio.create_task(sleep())
    await until(owner, sleepers=1)
    sleeping.cancel()
    await asyncio.sleep(0)
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping
    assert await is_clean(one_connection)


async def test_cancelled_at_any_moment_the_pool_stays_whole(one_connection: PostgresDatabase) -> None:
    """Every step of a transaction, its COMMIT too, is a moment at which its caller may be cancelled."""

    async def transact() -> None:
        async with one_connection.tenant(new_id()) as session:
            await session.one(_TENANT)
            await session.one(_TENANT)

    whole = 0
    for ticks in range(200):
        task = asyncio.create_task(transact())
        for _ in range(ticks):
            await asyncio.sleep(0)
        whole += task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await is_clean(one_connection)
        if whole == 3:
            return
    raise AssertionError("no transaction came to its end")


async def test_connections_that_the_server_closed_are_replaced(
    database: TestDatabase, owner: asyncpg.Connection
) -> None:
    adapter = PostgresDatabase(database.role_url("command_api"), pool_size=4)

    async def hold(all_in: asyncio.Barrier) -> None:
        async with adapter.system() as session:
            await session.one("SELECT 1")
            await all_in.wait()

    async def four_held() -> bool:
        all_in, held = asyncio.Barrier(4), False
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(4):
                    tasks.create_task(hold(all_in))
            held = True
        except* DatabaseUnavailable:
            pass
        return held

    async with asyncio.timeout(20):
        assert await four_held()
        ended = await owner.fetch(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'parley_command_api'"
            " AND datname = current_database()"
        )
        assert len(ended) == 4
        while not await four_held():
            pass  # a connection whose end has not been read yet fails the call that is given it, and is dropped
    await adapter.close()


async def test_a_server_that_ends_a_transaction_is_unavailable(
    one_connection: PostgresDatabase, owner: asyncpg.Connection
) -> None:
    with pytest.raises(DatabaseUnavailable, match=re.escape("Postgres is unavailable: ")):
        async with one_connection.system() as session:
            row = await session.one("SELECT pg_backend_pid() AS pid")
            assert row is not None
            await owner.execute("SELECT pg_terminate_backend($1, 5000)", row["pid"])
            await session.one("SELECT 1")
    assert await is_clean(one_connection)


async def test_a_server_that_is_still_starting_is_unavailable(short_folder: Path) -> None:
    async def not_yet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        fields = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0"
        writer.write(b"E" + (len(fields) + 4).to_bytes(4) + fields)
        writer.close()

    folder = short_folder / "starting"
    folder.mkdir()
    async with await asyncio.start_unix_server(not_yet, folder / ".s.PGSQL.5432"):
        adapter = PostgresDatabase(f"postgresql://anybody@/postgres?host={folder}", pool_size=1)
        with pytest.raises(DatabaseUnavailable, match="CannotConnectNowError"):
            await adapter.ping()
        await adapter.close()
