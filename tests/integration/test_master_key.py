"""A master key that opens nothing is told before anybody's prompt meets it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from pydantic import SecretStr

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.ports.identifiers import new_id
from backplane.security.content import DataKeys
from backplane.security.sealing import MasterKey
from backplane.settings import PostgresSettings, RedisSettings, RoleUrls, SecuritySettings, Settings
from backplane.wiring.services import (
    NotConfigured,
    command_side,
    master_key,
    query_side,
    try_master_key,
    worker_side,
)
from tests.conftest import TestDatabase
from tests.vault.server import KEY, MOUNT, vault

OURS, ANOTHER = "ab" * 32, "cd" * 32


async def write(database: TestDatabase, key: str) -> None:
    """A data key under this master key."""
    tenant, conversation = new_id(), new_id()
    _, wrapped = await DataKeys(MasterKey(key)).make(tenant, conversation)
    await store(database, tenant, conversation, wrapped)


async def store(database: TestDatabase, tenant: UUID, conversation: UUID, wrapped: bytes) -> None:
    owner = await asyncpg.connect(database.owner_url)
    await owner.execute(
        "INSERT INTO control.data_keys (tenant_id, conversation_id, wrapped) VALUES ($1, $2, $3)",
        *(tenant, conversation, wrapped),
    )
    await owner.close()


@pytest.mark.parametrize("role", ["command_api", "query_api", "worker"])
async def test_it_is_tried_on_the_newest_data_key(database: TestDatabase, role: str) -> None:
    adapter = PostgresDatabase(database.role_url(role), pool_size=1)
    keys = DataKeys(MasterKey(OURS))
    assert not await try_master_key(adapter, keys)
    await write(database, ANOTHER)
    with pytest.raises(NotConfigured, match="set the former one again"):
        await try_master_key(adapter, keys)
    await write(database, OURS)
    assert await try_master_key(adapter, keys)
    await adapter.close()


@pytest.mark.parametrize("side", [command_side, query_side, worker_side])
async def test_a_service_with_another_one_does_not_start(
    database: TestDatabase, side: Callable[[Settings], AbstractAsyncContextManager[Any]], tmp_path: Path
) -> None:
    await write(database, ANOTHER)
    roles = {role: SecretStr(database.role_url(role)) for role in RoleUrls.model_fields}
    settings = Settings(
        postgres=PostgresSettings(role_urls=RoleUrls(**roles)),
        redis=RedisSettings(url=SecretStr(f"unix://{tmp_path}/nobody.sock")),
        security=SecuritySettings(key_pepper=SecretStr("p"), master_key=SecretStr(OURS)),
    )
    with pytest.raises(NotConfigured, match="the newest data key does not open"):
        async with side(settings):
            raise AssertionError("it started")
    right = settings.security.model_copy(update={"master_key": SecretStr(ANOTHER)})
    async with side(settings.model_copy(update={"security": right})):
        pass


async def test_a_token_that_a_vault_refuses_is_told_at_the_start(database: TestDatabase, tmp_path: Path) -> None:
    roles = {role: SecretStr(database.role_url(role)) for role in RoleUrls.model_fields}
    async with vault() as server:
        settings = Settings(
            postgres=PostgresSettings(role_urls=RoleUrls(**roles)),
            redis=RedisSettings(url=SecretStr(f"unix://{tmp_path}/nobody.sock")),
            security=SecuritySettings(
                key_pepper=SecretStr("p"),
                master_key=SecretStr(OURS),
                vault_url=server.url,
                vault_mount=MOUNT,
                vault_key=KEY,
                vault_token=SecretStr("wrong"),
            ),
        )
        with pytest.raises(NotConfigured, match=r"does not allow team/transit/encrypt/parley"):
            async with command_side(settings):
                raise AssertionError("it started")
        server.fault = 503
        async with command_side(settings):
            pass
        server.fault, server.token = None, "wrong"
        async with command_side(settings) as side:
            tenant, conversation = new_id(), new_id()
            _, wrapped = await side.data_keys.make(tenant, conversation)
        await store(database, tenant, conversation, wrapped)
        server.token = "renewed"
        for side_of in (query_side, worker_side):
            with pytest.raises(NotConfigured, match=r"does not allow team/transit/decrypt/parley"):
                async with side_of(settings):
                    raise AssertionError("it started")


def test_a_file_holds_it_as_well(tmp_path: Path) -> None:
    file = tmp_path / "master.key"
    settings = Settings(security=SecuritySettings(master_key=SecretStr(ANOTHER), master_key_file=file))
    with pytest.raises(NotConfigured, match=r"master\.key cannot be read: FileNotFoundError"):
        master_key(settings)
    for unusable in (b"a secret", b"\xff", b""):
        file.write_bytes(unusable)
        with pytest.raises(NotConfigured) as told:
            master_key(settings)
        assert "secret" not in str(told.value)
    file.write_text(f"{OURS}\n")
    assert master_key(settings).id == MasterKey(OURS).id
    assert master_key(Settings(security=SecuritySettings(master_key=SecretStr(ANOTHER)))).id == MasterKey(ANOTHER).id
