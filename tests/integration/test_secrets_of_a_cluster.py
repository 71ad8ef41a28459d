"""The secrets that `parley secrets` makes let services in to real servers, and nobody else."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
import redis
from pydantic import SecretStr

from backplane.adapters.embedded.valkey import EmbeddedValkey
from backplane.settings import PostgresSettings, RoleUrls, Settings
from backplane.wiring.embedded import migrate
from cli import secret_files
from tests.conftest import ROLES, Server, TestDatabase


@pytest.fixture
def settings(database: TestDatabase, tmp_path: Path) -> Settings:
    urls = {role: SecretStr(database.role_url(role)) for role in ROLES}
    postgres = PostgresSettings(url=SecretStr(database.owner_url), role_urls=RoleUrls(**urls))
    return Settings(data_dir=tmp_path / "data", postgres=postgres)


async def hash_of(database: TestDatabase, role: str) -> str:
    connection = await asyncpg.connect(database.owner_url)
    try:
        found: str = await connection.fetchval("SELECT rolpassword FROM pg_authid WHERE rolname = $1", f"parley_{role}")
        return found
    finally:
        await connection.close()


async def test_migrating_lets_a_role_in_with_the_password_of_its_url(
    database: TestDatabase, settings: Settings
) -> None:
    untouched = await hash_of(database, "worker")
    connection = await asyncpg.connect(database.owner_url)
    await connection.execute("ALTER ROLE parley_relay NOLOGIN PASSWORD 'another'")
    await connection.close()
    await migrate(settings)
    for role in ROLES:
        connection = await asyncpg.connect(database.role_url(role))
        await connection.close()
    assert await hash_of(database, "worker") == untouched
    assert not settings.data_dir.exists()


async def test_migrating_leaves_users_of_other_names_alone(database: TestDatabase, settings: Settings) -> None:
    untouched = await hash_of(database, "relay")
    stranger = database.role_url("relay").replace("parley_relay", "somebody")
    urls = settings.postgres.role_urls.model_copy(update={"relay": SecretStr(stranger)})
    postgres = settings.postgres.model_copy(update={"role_urls": urls})
    await migrate(settings.model_copy(update={"postgres": postgres}))
    assert await hash_of(database, "relay") == untouched


@pytest.fixture
def guarded(short_folder: Path, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A Redis with our users: its URL without any, and our password."""
    secret_files.write(tmp_path / "secrets", "postgres:5432/parley", "redis:6379")
    users = short_folder / "redis_users.acl"
    users.write_bytes((tmp_path / "secrets" / "redis_users.acl").read_bytes())
    users.chmod(0o644)  # the embedded server may run as another account
    short_folder.chmod(0o755)
    embedded = EmbeddedValkey(short_folder / "guarded")
    embedded.prepare()
    command = embedded.command()

    def ping() -> None:
        with redis.Redis.from_url(embedded.url) as client:
            client.ping()

    server = Server(replace(command, argv=(*command.argv, "--aclfile", str(users))), ping, signal.SIGTERM)
    server.start()
    yield embedded.url, (tmp_path / "secrets" / "redis_password").read_text()
    server.stop()


def test_redis_lets_our_user_in_and_a_health_check_ask_whether_it_answers(guarded: tuple[str, str]) -> None:
    url, password = guarded
    with redis.Redis.from_url(url) as nobody:
        assert nobody.ping()
        for forbidden in (lambda: nobody.get("x"), lambda: nobody.publish("x", "y"), lambda: nobody.info()):
            with pytest.raises(redis.exceptions.NoPermissionError):
                forbidden()  # type: ignore[no-untyped-call]
    with redis.Redis.from_url(url, username="parley", password=password) as ours:
        script = "redis.call('SET', KEYS[1], 'v'); return redis.call('GET', KEYS[1])"
        assert ours.eval(script, 1, "x") == b"v"
        assert ours.xadd("stream", {"a": "b"})
        assert ours.publish("channel", "m") == 0
        assert ours.info("server")["run_id"]
        with pytest.raises(redis.exceptions.NoPermissionError):
            ours.config_get("*")
    with (
        redis.Redis.from_url(url, username="parley", password="wrong") as stranger,
        pytest.raises(redis.exceptions.AuthenticationError),
    ):
        stranger.ping()
