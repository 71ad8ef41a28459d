"""For how long a tenant's content is kept."""

from __future__ import annotations

from uuid import UUID

from backplane.ports.database import Database
from backplane.ports.identifiers import new_id
from command_api import outbox
from command_api.tenancy import OPERATOR, SOURCE
from event_schemas.envelope import Envelope
from event_schemas.erasure import ContentPolicy, ContentPolicySet, SetContentPolicy


async def content_policy(database: Database, tenant_id: UUID) -> ContentPolicy:
    """Raises LookupError where there is no such tenant, DatabaseUnavailable."""
    async with database.tenant(tenant_id) as session:
        row = await session.one(
            "SELECT keeps_content, content_days FROM control.tenants WHERE tenant_id = :id", id=tenant_id
        )
    if row is None:
        raise LookupError(f"there is no tenant {tenant_id}")
    return ContentPolicy.model_validate(row)


async def set_content_policy(
    database: Database, tenant_id: UUID, policy: ContentPolicy, *, actor: str = OPERATOR
) -> None:
    """Decide it. Raises LookupError where there is no such tenant, DatabaseUnavailable."""
    async with database.tenant(tenant_id) as session:
        changed = await session.execute(
            "UPDATE control.tenants SET keeps_content = :keeps_content, content_days = :content_days"
            " WHERE tenant_id = :id AND (keeps_content, content_days)"
            " IS DISTINCT FROM (CAST(:keeps_content AS boolean), CAST(:content_days AS integer))",
            id=tenant_id,
            **policy.model_dump(),
        )
        if changed:
            command = SetContentPolicy(tenant_id=tenant_id, policy=policy)
            asked = Envelope.first(command, id=new_id(), source=SOURCE, tenant_id=tenant_id, actor=actor)
            event = ContentPolicySet(tenant_id=tenant_id, policy=policy)
            await outbox.add(session, asked.caused(event, id=new_id(), source=SOURCE))
        elif await session.one("SELECT 1 FROM control.tenants WHERE tenant_id = :id", id=tenant_id) is None:
            raise LookupError(f"there is no tenant {tenant_id}")
