"""A Postgres whose pgvector is too old for collections, or becomes new enough."""

from __future__ import annotations

import asyncpg
import pytest
from pydantic import SecretStr

from backplane.adapters.postgres.migrate import migrate
from backplane.settings import PostgresSettings, Settings
from cli.finding import OK, WARN
from cli.server_checks import _vectors
from command_api.collections import NoVectors
from command_api.tenancy import provision_tenant
from tests.conftest import TestDatabase
from tests.integration.knowledge_world import knowledge_world


async def test_until_pgvector_is_new_enough_only_collections_are_missing(database: TestDatabase) -> None:
    settings = Settings(postgres=PostgresSettings(url=SecretStr(database.owner_url)))
    owner = await asyncpg.connect(database.owner_url)
    version = await owner.fetchval("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    found = await _vectors(settings)
    assert (found.state, found.detail) == (OK, f"version {version}; collections can be made")
    # As after migrating where it was too old.
    await owner.execute("DROP TABLE knowledge.chunks")
    await owner.execute("UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'")
    assert not await owner.fetchval("SELECT knowledge.make_chunks()")
    found = await _vectors(settings)
    assert (found.state, found.detail) == (WARN, "version 0.7.4 is there, so no collection can be made")
    assert "0.8" in found.advice
    async with knowledge_world(database) as world:
        tenant_id = await provision_tenant(world.commands, "acme")
        with pytest.raises(NoVectors):
            await world.collection(tenant_id)
        await owner.execute("UPDATE pg_extension SET extversion = $1 WHERE extname = 'vector'", version)
        await migrate(database.owner_url, {})
        collection_id = await world.collection(tenant_id)
        document_id = await world.add(tenant_id, collection_id, "Tea is grown on hills.")
        assert await world.texts(document_id)
    assert (await _vectors(settings)).state == OK
    await owner.close()
