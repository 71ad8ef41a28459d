"""Bringing a database to the schema of this release."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
from sqlalchemy import Connection

from backplane.adapters.postgres.database import engine, unavailable

if TYPE_CHECKING:
    from alembic.config import Config

# Alembic is imported where it is used: it takes as long to import as all the rest, and every service comes by here.

_SCRIPTS = Path(__file__).parent / "migrations"
_ONE_AT_A_TIME = 0x7061726C6579  # "parley", as an advisory lock


async def migrate(owner_url: str, passwords: Mapping[str, str]) -> tuple[str | None, str]:
    """Run what is missing, and let the roles in ``passwords`` log in with them. Idempotent; one at a time.

    Returns (revision before, revision after). Roles are named without their prefix: ``command_api``.
    Raises DatabaseUnavailable.
    """
    with unavailable():
        return await _migrated(owner_url, passwords)


async def _migrated(owner_url: str, passwords: Mapping[str, str]) -> tuple[str | None, str]:
    made = engine(owner_url, 1)
    try:
        async with made.connect() as connection:
            await connection.exec_driver_sql(f"SELECT pg_advisory_lock({_ONE_AT_A_TIME})")
            await connection.commit()
            before, after = await connection.run_sync(_upgrade)
            await connection.commit()
            driver = (await connection.get_raw_connection()).driver_connection
            assert isinstance(driver, asyncpg.Connection)
            await driver.execute("SELECT knowledge.make_chunks()")  # pgvector may have come since the last time
            for role, password in passwords.items():
                await driver.execute(
                    await driver.fetchval(
                        "SELECT format('ALTER ROLE %I LOGIN PASSWORD %L', 'parley_' || $1::text, $2::text)",
                        role,
                        password,
                    )
                )
    finally:
        await made.dispose()
    return before, after


def newest_revision() -> str:
    """The revision that this release expects: history is one line, so its newest file names it."""
    return max(file.stem.partition("_")[0] for file in (_SCRIPTS / "versions").glob("[0-9]*.py"))


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    config.set_main_option("path_separator", "os")
    return config


def _upgrade(connection: Connection) -> tuple[str | None, str]:
    from alembic import command
    from alembic.runtime.migration import MigrationContext

    before = MigrationContext.configure(connection).get_current_revision()
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    return before, newest_revision()
