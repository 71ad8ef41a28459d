"""The SQL of people's lists: control-plane rows, not a read model, so they hold at once.

Every question is asked in a session that sees one tenant, and names that tenant too; only the platform's sees all.
"""

from __future__ import annotations

from uuid import UUID

from backplane.ports.database import Row, TenantSession
from backplane.security.principal import Principal
from event_schemas.envelope import PLATFORM


async def users(session: TenantSession) -> list[Row]:
    """Those that are not removed, oldest first."""
    return await session.all(
        "SELECT user_id AS id, name, email, role, created_at, joined_at, suspended_at FROM control.users"
        " WHERE tenant_id = :tenant AND removed_at IS NULL ORDER BY created_at, user_id",
        tenant=session.tenant_id,
    )


async def user(session: TenantSession, user_id: UUID) -> Row:
    """Name and e-mail address of one, removed or not."""
    found = await session.one(
        "SELECT name, email FROM control.users WHERE tenant_id = :tenant AND user_id = :id",
        tenant=session.tenant_id,
        id=user_id,
    )
    assert found is not None, "a principal's user is there"
    return found


async def api_keys(session: TenantSession, principal: Principal) -> list[Row]:
    """Those that have not ended, oldest first: everybody's, or those that are ``principal``'s own."""
    return await session.all(
        "SELECT key_id AS id, name, role, user_id, 'parley_' || prefix AS prefix, models, personas, created_at,"
        " expires_at, CASE WHEN former_ends_at > now() THEN former_ends_at END AS former_ends_at FROM control.api_keys"
        " WHERE tenant_id = :tenant AND revoked_at IS NULL AND coalesce(expires_at > now(), true)"
        " AND (:everybody OR user_id = CAST(:user_id AS uuid) OR key_id = :key_id) ORDER BY created_at, key_id",
        tenant=session.tenant_id,
        everybody=principal.may("keys.all"),
        user_id=principal.user_id,
        key_id=principal.key_id,
    )


async def sessions(session: TenantSession, principal: Principal, idle_s: float) -> list[Row]:
    """``principal``'s own that have not ended, newest first."""
    return await session.all(
        "SELECT session_id AS id, method, created_at, seen_at, expires_at,"
        " session_id IS NOT DISTINCT FROM CAST(:current AS uuid) AS current"
        " FROM control.sessions WHERE tenant_id = :tenant AND ended_at IS NULL AND expires_at > now()"
        " AND seen_at > now() - make_interval(secs => :idle_s)"
        " AND CASE WHEN CAST(:user_id AS uuid) IS NULL THEN user_id IS NULL AND key_id = :key_id"
        " ELSE user_id = :user_id END ORDER BY created_at DESC, session_id DESC",
        tenant=session.tenant_id,
        idle_s=idle_s,
        current=principal.session_id,
        user_id=principal.user_id,
        key_id=principal.key_id,
    )


async def tenants(session: TenantSession) -> list[Row]:
    """All but the platform's own, oldest first, where the session is the platform's; else none."""
    return await session.all(
        "SELECT tenant_id AS id, name, weight, priority, created_at, suspended_at FROM control.tenants"
        " WHERE tenant_id <> :platform AND CAST(:tenant AS uuid) = :platform ORDER BY created_at, tenant_id",
        tenant=session.tenant_id,
        platform=PLATFORM,
    )
