"""Collections at the command line, through the command API's own handlers."""

from __future__ import annotations

from uuid import UUID

from backplane.settings import Settings
from backplane.wiring.embedded import completed
from backplane.wiring.services import command_side
from cli import tenancy
from cli.failures import CommandError
from command_api.collections import Collections, NoSuchCollection
from command_api.tenancy import OPERATOR


async def reindex(settings: Settings, tenant: str, collection_id: UUID) -> int:
    """How many documents are queued. Raises CommandError."""
    owner = await tenancy.find_tenant(settings, tenant)
    async with command_side(completed(settings)) as side:
        collections = Collections(side.database, side.data_keys, settings.knowledge.embedders)
        try:
            return await collections.reindex(owner, collection_id, actor=OPERATOR)
        except NoSuchCollection:
            raise CommandError(f"the tenant {tenant} has no collection {collection_id}") from None
