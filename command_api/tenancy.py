"""Tenants and their shares, and what operators do to users and API keys at the command line.

Each change is a command with an event, decided in one transaction.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from backplane.ports.database import Database
from backplane.ports.identifiers import new_id
from backplane.ports.token_stream import Signals
from backplane.security.api_key import ApiKey
from backplane.security.authenticator import REVOCATIONS, revocation
from backplane.security.permissions import lesser
from command_api import api_keys, outbox
from command_api.api_keys import Issued, NoSuchKey
from event_schemas.control_plane import (
    InviteUser,
    IssueApiKey,
    KeyRole,
    ProvisionTenant,
    SetTenantShare,
    TenantProvisioned,
    TenantShareSet,
    UserInvited,
)
from event_schemas.people import ResumeTenant, SuspendTenant, TenantResumed, TenantSuspended
from event_schemas.share import Priority, Share

SOURCE = "/parley/command_api"
OPERATOR = "operator"
"""The actor of what is done at the command line."""


class NameTaken(ValueError):
    """Another tenant has that name."""


class HasOwner(Exception):
    """The tenant has an owner, who alone makes others."""


class UserMayLess(ValueError):
    """A user's key cannot have a role that the user has not. ``args[0]`` is the user's."""


async def provision_tenant(database: Database, name: str, *, actor: str = OPERATOR) -> UUID:
    """Make a tenant. Returns its id. Raises NameTaken, ValueError for an empty name, DatabaseUnavailable."""
    command = ProvisionTenant(tenant_id=new_id(), name=name)
    async with database.tenant(command.tenant_id) as session:
        # Of two that make the same one, the second waits and sees the first.
        await session.execute("SELECT pg_advisory_xact_lock(hashtextextended('tenants/' || :name, 0))", name=name)
        taken = await session.one("SELECT 1 WHERE control.is_tenant_named(:name)", name=name)
        if taken is not None:
            raise NameTaken(f"there is a tenant {name!r} already")
        await session.execute(
            "INSERT INTO control.tenants (tenant_id, name) VALUES (:id, :name)", id=command.tenant_id, name=name
        )
        await outbox.decided(session, SOURCE, command, TenantProvisioned(tenant_id=command.tenant_id, name=name), actor)
    return command.tenant_id


async def first_owner_key(database: Database, pepper: str, tenant_id: UUID, *, actor: str) -> Issued:
    """An owner's key of a tenant that has no owner. Raises LookupError, HasOwner, DatabaseUnavailable."""
    command = IssueApiKey(key_id=new_id(), user_id=None, role="owner", name="first owner key")
    async with database.tenant(tenant_id) as session:
        if await session.one("SELECT 1 FROM control.tenants WHERE tenant_id = :id FOR UPDATE", id=tenant_id) is None:
            raise LookupError(f"there is no tenant {tenant_id}")
        owner = await session.one(
            "SELECT 1 WHERE EXISTS (SELECT FROM control.users WHERE role = 'owner' AND removed_at IS NULL)"
            " OR EXISTS (SELECT FROM control.api_keys WHERE role = 'owner' AND revoked_at IS NULL"
            " AND coalesce(expires_at > now(), true))"
        )
        if owner is not None:
            raise HasOwner
        return Issued(command.key_id, await api_keys.add(session, pepper, command, actor))


async def set_share(
    database: Database,
    tenant_id: UUID,
    *,
    weight: int | None = None,
    priority: Priority | None = None,
    actor: str = OPERATOR,
) -> Share:
    """Change what is given of a tenant's share. Returns all of it. For operators: no tenant may raise its own.

    Each API knows of it once it has forgotten the tenant's keys, ``security.key_cache_s`` seconds later at most.
    Raises LookupError where there is no such tenant, ValueError for a weight outside 1 to 100, DatabaseUnavailable.
    """
    async with database.tenant(tenant_id) as session:
        row = await session.one(
            "SELECT weight, priority FROM control.tenants WHERE tenant_id = :id FOR UPDATE", id=tenant_id
        )
        if row is None:
            raise LookupError(f"there is no tenant {tenant_id}")
        before = Share.model_validate(row)
        share = Share(weight=before.weight if weight is None else weight, priority=priority or before.priority)
        if share != before:
            await session.execute(
                "UPDATE control.tenants SET weight = :weight, priority = :priority WHERE tenant_id = :id",
                id=tenant_id,
                **share.model_dump(),
            )
            command = SetTenantShare(tenant_id=tenant_id, share=share)
            await outbox.decided(session, SOURCE, command, TenantShareSet(tenant_id=tenant_id, share=share), actor)
    return share


async def suspend(database: Database, signals: Signals, tenant_id: UUID, *, actor: str = OPERATOR) -> bool:
    """Nobody of the tenant is let in from now on, on any process. What runs already ends. False if it was so already.

    Raises LookupError where there is no such tenant, DatabaseUnavailable.
    """
    command, event = SuspendTenant(tenant_id=tenant_id), TenantSuspended(tenant_id=tenant_id)
    return await _set_suspended(database, signals, command, event, actor=actor)


async def resume(database: Database, signals: Signals, tenant_id: UUID, *, actor: str = OPERATOR) -> bool:
    """The tenant's keys and sessions work again. False if they did. Raises as `suspend`."""
    command, event = ResumeTenant(tenant_id=tenant_id), TenantResumed(tenant_id=tenant_id)
    return await _set_suspended(database, signals, command, event, actor=actor)


async def _set_suspended(
    database: Database,
    signals: Signals,
    command: SuspendTenant | ResumeTenant,
    event: TenantSuspended | TenantResumed,
    *,
    actor: str,
) -> bool:
    async with database.tenant(command.tenant_id) as session:
        if await session.one("SELECT 1 FROM control.tenants WHERE tenant_id = :id", id=command.tenant_id) is None:
            raise LookupError(f"there is no tenant {command.tenant_id}")
        wanted = isinstance(command, SuspendTenant)
        changed = await session.execute(
            "UPDATE control.tenants SET suspended_at = CASE WHEN :wanted THEN now() END"
            " WHERE tenant_id = :id AND (suspended_at IS NOT NULL) <> :wanted",
            id=command.tenant_id,
            wanted=wanted,
        )
        if changed:
            await outbox.decided(session, SOURCE, command, event, actor)
    await signals.send(REVOCATIONS, revocation("tenant", command.tenant_id))
    return bool(changed)


async def invite_user(
    database: Database, tenant_id: UUID, name: str, role: KeyRole = "member", *, actor: str = OPERATOR
) -> UUID:
    """The user of that name, made with ``role`` if it is not there. Returns its id. Raises DatabaseUnavailable."""
    command = InviteUser(user_id=new_id(), name=name, role=role)
    async with database.tenant(tenant_id) as session:
        known = await session.one(
            "SELECT user_id FROM control.users WHERE name = :name AND removed_at IS NULL", name=name
        )
        if known is not None:
            found: UUID = known["user_id"]
            return found
        await session.execute(
            "INSERT INTO control.users (user_id, tenant_id, name, role) VALUES (:id, :tenant_id, :name, :role)",
            id=command.user_id,
            tenant_id=tenant_id,
            name=name,
            role=role,
        )
        await outbox.decided(session, SOURCE, command, UserInvited(**command.model_dump()), actor)
    return command.user_id


async def issue_key(
    database: Database,
    pepper: str,
    tenant_id: UUID,
    role: KeyRole,
    *,
    name: str = "",
    user_id: UUID | None = None,
    expires_at: datetime | None = None,
    actor: str = OPERATOR,
) -> ApiKey:
    """Make an API key. It can be revealed now and never again.

    Raises LookupError for an unknown tenant or user, UserMayLess, DatabaseUnavailable.
    """
    command = IssueApiKey(key_id=new_id(), user_id=user_id, role=role, name=name, expires_at=expires_at)
    async with database.tenant(tenant_id) as session:
        if await session.one("SELECT 1 FROM control.tenants WHERE tenant_id = :id", id=tenant_id) is None:
            raise LookupError(f"there is no tenant {tenant_id}")
        if user_id is not None:
            user = await session.one("SELECT role FROM control.users WHERE user_id = :id", id=user_id)
            if user is None:
                raise LookupError(f"there is no user {user_id}")
            if lesser(role, user["role"]) != role:
                raise UserMayLess(user["role"])
        return await api_keys.add(session, pepper, command, actor)


async def revoke_key(database: Database, signals: Signals, prefix: str, *, actor: str = OPERATOR) -> bool:
    """Revoke the key with this prefix, at once on every process. False if it was revoked already.

    Raises NoSuchKey, DatabaseUnavailable.
    """
    async with database.system() as session:
        key = await session.one("SELECT key_id, tenant_id FROM control.find_key(:prefix)", prefix=prefix)
    if key is None:
        raise NoSuchKey(f"no key begins with parley_{prefix[:16]}")
    return await api_keys.revoke(database, signals, key["tenant_id"], key["key_id"], actor)
