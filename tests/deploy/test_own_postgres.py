"""A Postgres that is not embedded: what the page and the chart make there is enough for migrating and logging in."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import asyncpg
import pytest

from backplane.adapters.postgres.migrate import migrate, newest_revision
from backplane.settings import RoleUrls
from tests.conftest import PostgresServer, start_postgres
from tests.deploy.manifests import CHART, ROOT

ROLES = tuple(RoleUrls.model_fields)


@pytest.fixture
def server(short_folder: Path, tmp_path: Path) -> Iterator[PostgresServer]:
    """One of its own, since roles are there for all databases of a server."""
    folder = short_folder / tmp_path.name[:20]
    running = start_postgres(folder)
    yield running
    running.server.stop()
    shutil.rmtree(folder, ignore_errors=True)


def url(server: PostgresServer, role: str, password: str) -> str:
    return server.embedded.url(role, password).replace("/postgres?", "/parley?")


async def logs_in(server: PostgresServer, role: str, password: str) -> bool:
    connection = await asyncpg.connect(url(server, role, password))
    try:
        bypasses = await connection.fetchval(
            "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"
        )
        return not bypasses
    finally:
        await connection.close()


async def test_what_the_page_says_of_postgres_is_enough(server: PostgresServer) -> None:
    page = (ROOT / "docs" / "how-to" / "kubernetes.md").read_text()
    block = re.search(r"```sql\n(.*?)```", page, re.DOTALL)
    assert block is not None
    connection = await asyncpg.connect(server.owner_url())
    for statement in block[1].replace("…", "a-password").split(";")[:-1]:
        await connection.execute(statement)
    await connection.close()
    assert await migrate(url(server, "parley", "a-password"), {}) == (None, newest_revision())
    for role in ROLES:
        assert await logs_in(server, f"parley_{role}", "a-password")


async def test_the_chart_makes_the_roles_of_its_own_postgres(server: PostgresServer, tmp_path: Path) -> None:
    for role in ("owner", *ROLES):
        (tmp_path / f"password-{role.replace('_', '-')}").write_text(f"it's {role}'s")
    script = re.search(r"roles\.sh: \|\n((?:    .*\n)+)", (CHART / "templates" / "local-servers.yaml").read_text())
    assert script is not None
    connection = await asyncpg.connect(server.owner_url())
    await connection.execute("CREATE ROLE parley LOGIN SUPERUSER PASSWORD 'a-password'")
    await connection.execute("CREATE DATABASE parley OWNER parley")
    await connection.close()
    run = partial(
        subprocess.run,
        ["sh", "-c", re.sub("^    ", "", script[1], flags=re.MULTILINE).replace("/run/parley", str(tmp_path))],
        check=True,
        timeout=30,
        env={
            "PATH": f"{Path(server.embedded.command().argv[0]).parent}:{os.environ['PATH']}",
            "PGHOST": str(server.embedded.socket_dir),
            "PGPASSWORD": "a-password",
            "POSTGRES_USER": "parley",
            "POSTGRES_DB": "parley",
        },
    )
    await asyncio.to_thread(run)
    assert await migrate(url(server, "parley", "a-password"), {}) == (None, newest_revision())
    for role in ROLES:
        assert await logs_in(server, f"parley_{role}", f"it's {role}'s")
