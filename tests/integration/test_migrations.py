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


async def test_a_wrong_password_is_refused(database: TestDatabase) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(database.owner_url.replace(PASSWORD, "wrong"))
