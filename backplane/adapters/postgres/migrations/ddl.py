"""SQL files as migrations and rebuilds run them.

A read model's DDL names no schema. A migration runs it inside ``read_models``; a rebuild runs the files of every
migration, in order, inside a schema of its own, so that what is swapped in has the same policies, grants and indexes.
"""

from __future__ import annotations

from pathlib import Path

import asyncpg
from alembic import op
from sqlalchemy.util import await_only

_SQL = Path(__file__).parent / "sql"

READ_MODELS = "read_models"


def apply(file: str) -> None:
    """Run one file in the transaction of the migration that calls."""
    _run(_read(file))


def apply_read_models(revision: str) -> None:
    """Run all of a revision's read model files inside the schema ``read_models``."""
    for file in sorted((_SQL / revision / READ_MODELS).glob("*.sql")):
        _run(_inside(READ_MODELS, file.read_text()))


async def create_read_model(connection: asyncpg.Connection, model: str, schema: str) -> None:
    """Make the tables of ``model`` as all migrations together make them, inside ``schema``.

    Raises LookupError where no migration knows the model.
    """
    files = sorted(_SQL.glob(f"*/{READ_MODELS}/{model}.sql"))
    if not files:
        raise LookupError(f"no migration makes a read model {model!r}")
    for file in files:
        await connection.execute(_inside(schema, file.read_text()))


def _read(file: str) -> str:
    return (_SQL / file).read_text()


def _inside(schema: str, sql: str) -> str:
    return f"SET LOCAL search_path = {schema};\n{sql}\nSET LOCAL search_path = DEFAULT;"


def _run(sql: str) -> None:
    # The files hold many statements; asyncpg takes those only outside the prepared-statement protocol that
    # SQLAlchemy uses. A statement through SQLAlchemy first makes sure that its transaction is open.
    bind = op.get_bind()
    bind.exec_driver_sql("SELECT 1")
    driver = bind.connection.driver_connection
    assert driver is not None
    await_only(driver.execute(sql))
