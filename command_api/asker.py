"""Who asks when nobody calls: whoever once said that it be asked, as they are now."""

from __future__ import annotations

from uuid import UUID

from backplane.ports.database import TenantSession
from backplane.security.permissions import lesser
from backplane.security.principal import Principal
from event_schemas.share import Share


async def as_now(session: TenantSession, key_id: UUID, user_id: UUID | None) -> Principal | None:
    """Whose key or session that was. None while they may not ask: suspended, removed, their key revoked or over."""
    row = await session.one(
        "SELECT t.weight, t.priority, k.role AS of_key, k.models, k.personas, u.role AS of_user FROM control.tenants t"
        " LEFT JOIN control.api_keys k ON k.tenant_id = t.tenant_id AND k.key_id = :key_id"
        " LEFT JOIN control.users u ON u.tenant_id = t.tenant_id AND u.user_id = CAST(:user_id AS uuid)"
        " WHERE t.tenant_id = :tenant_id AND t.suspended_at IS NULL"
        " AND (k.key_id IS NULL OR k.revoked_at IS NULL AND coalesce(k.expires_at > now(), true))"
        " AND (u.user_id IS NULL OR u.suspended_at IS NULL AND u.removed_at IS NULL)",
        tenant_id=session.tenant_id,
        user_id=user_id,
        key_id=key_id,
    )
    if row is None:
        return None
    of_key, of_user = row["of_key"], row["of_user"]
    role = lesser(of_key, of_user) if of_key and of_user else of_key or of_user
    if role is None:
        return None
    found = Principal(
        session.tenant_id,
        key_id,
        user_id,
        role,
        Share(weight=row["weight"], priority=row["priority"]),
        None if row["models"] is None else frozenset(row["models"]),
        None if row["personas"] is None else frozenset(row["personas"]),
    )
    return found if found.may("conversations.use") else None
