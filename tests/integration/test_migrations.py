from pathlib import Path

import asyncpg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from backplane.adapters.postgres import migrations
from backplane.adapters.postgres.migrate import migrate, newest_revision
from tests.conftest import PASSWORD, ROLES, TestDatabase


async def test_migrating_again_changes_nothing(database: TestDatabase) -> None:
    assert await migrate(database.owner_url, dict.fromkeys(ROLES, PASSWORD)) == (newest_revision(), newest_revision())


def test_the_newest_file_is_the_head_of_one_line_of_history() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_heads() == [newest_revision()]


@pytest.mark.parametrize("role", ROLES)
async def test_roles_log_in_by_password_and_own_nothing(database: TestDatabase, role: str) -> None:
    connection = await asyncpg.connect(database.role_url(role))
    try:
        assert await connection.fetchval(
            "SELECT NOT rolsuper AND NOT rolbypassrls FROM pg_roles WHERE rolname = current_user"
        )
        assert await connection.fetchval("SELECT count(*) FROM pg_class WHERE relowner = current_user::regrole") == 0
    finally:
        await connection.close()


async def test_a_wrong_password_is_refused(database: TestDatabase) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(database.owner_url.replace(PASSWORD, "wrong"))


async def test_every_table_with_a_tenant_has_row_level_security(database: TestDatabase) -> None:
    connection = await asyncpg.connect(database.owner_url)
    try:
        bare = await connection.fetch(
            """SELECT c.oid::regclass::text AS name FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
               WHERE a.attname = 'tenant_id' AND c.relkind = 'r' AND NOT c.relrowsecurity
                 AND c.oid <> 'work.claims'::regclass"""
        )
        assert [row["name"] for row in bare] == []
    finally:
        await connection.close()
