"""Backups as an operator makes them, with the tools of the Postgres that the tests run."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg

from backplane.adapters.embedded.postgres import OWNER
from tests.conftest import PASSWORD, PostgresServer


async def dump(server: PostgresServer, database: str, file: Path) -> None:
    """`pg_dump` of one database, while it is used."""
    await _run(server, "pg_dump", "--format", "custom", "--file", str(file), database)


async def restore(server: PostgresServer, database: str, file: Path) -> None:
    """Drop the database, whoever is connected, and make it from ``file`` with `pg_restore`."""
    connection = await asyncpg.connect(server.owner_url())
    await connection.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
    await connection.execute(f"CREATE DATABASE {database} TEMPLATE template0")
    await connection.close()
    await _run(server, "pg_restore", "--exit-on-error", "--dbname", database, str(file))


async def _run(server: PostgresServer, program: str, *arguments: str) -> None:
    path = Path(server.embedded.command().argv[0]).with_name(program)
    environment = {"PGHOST": str(server.embedded.socket_dir), "PGUSER": OWNER, "PGPASSWORD": PASSWORD}
    process = await asyncio.create_subprocess_exec(path, *arguments, env=environment, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    assert process.returncode == 0, said.decode()
