"""Tenants and their shares, users and API keys: each change is a command with an event, decided in one transaction."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from backplane.ports.database import Database, TenantSession
from backplane.ports.identifiers import new_id
from backplane.ports.token_stream import Signals
from backplane.security.api_key import ApiKey
from backplane.security.authenticator import REVOCATIONS
from command_api import outbox
from event_schemas.control_plane import (
    ApiKeyIssued,
    ApiKeyRevoked,
    InviteUser,
    IssueApiKey,
    KeyRole,
    ProvisionTenant,
    RevokeApiKey,
    SetTenantShare,
    TenantProvisioned,
    TenantShareSet,
    UserInvited,
)
from event_schemas.envelope import Envelope
from event_schemas.payload import Payload
from event_schemas.share import Priority, Share

SOURCE = "/parley/command_api"
OPERATOR = "operator"
"""The actor of what is done at the command line."""


class NoSuchKey(LookupError):
    """No key has this prefix."""


async def provision_tenant(database: Database, name: str, *, actor: str = OPERATOR) -> UUID:
    """Make a tenant. Returns its id. Raises ValueError for an empty name, DatabaseUnavailable."""
    command = ProvisionTenant(tenant_id=new_id(), name=name)
    async with database.tenant(command.tenant_id) as session:
        await session.execute(
            "INSERT INTO control.tenants (tenant_id, name) VALUES (:id, :name)", id=command.tenant_id, name=name
        )
        await _decided(session, command, TenantProvisioned(tenant_id=command.tenant_id, name=name), actor)
    return command.tenant_id


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
            await _decided(session, command, TenantShareSet(tenant_id=tenant_id, share=share), actor)
    return share


async def invite_user(database: Database, tenant_id: UUID, name: str, *, actor: str = OPERATOR) -> UUID:
    """The user of that name, made if it is not there. Returns its id. Raises DatabaseUnavailable."""
    command = InviteUser(user_id=new_id(), name=name)
    async with database.tenant(tenant_id) as session:
        known = await session.one("SELECT user_id FROM control.users WHERE name = :name", name=name)
        if known is not None:
            found: UUID = known["user_id"]
            return found
        await session.execute(
            "INSERT INTO control.users (user_id, tenant_id, name) VALUES (:id, :tenant_id, :name)",
            id=command.user_id,
            tenant_id=tenant_id,
            name=name,
        )
        await _decided(session, command, UserInvited(user_id=command.user_id, name=name), actor)
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
    """Make an API key. It can be revealed now and never again. Raises LookupError for an unknown tenant."""
    key = ApiKey.make()
    command = IssueApiKey(key_id=new_id(), user_id=user_id, role=role, name=name, expires_at=expires_at)
    async with database.tenant(tenant_id) as session:
        if await session.one("SELECT 1 FROM control.tenants WHERE tenant_id = :id", id=tenant_id) is None:
            raise LookupError(f"there is no tenant {tenant_id}")
        await session.execute(
            "INSERT INTO control.api_keys (key_id, tenant_id, user_id, role, name, prefix, secret_hash, expires_at)"
            " VALUES (:key_id, :tenant_id, :user_id, :role, :name, :prefix, :secret_hash, :expires_at)",
            key_id=command.key_id,
            tenant_id=tenant_id,
            user_id=user_id,
            role=role,
            name=name,
            prefix=key.prefix,
            secret_hash=key.hashed(pepper),
            expires_at=expires_at,
        )
        issued = ApiKeyIssued(**command.model_dump(), prefix=key.prefix)
        await _decided(session, command, issued, actor)
    return key


async def revoke_key(database: Database, signals: Signals, prefix: str, *, actor: str = OPERATOR) -> bool:
    """Revoke the key with this prefix, at once on every process. False if it was revoked already.

    Raises NoSuchKey, DatabaseUnavailable.
    """
    async with database.system() as session:
        key = await session.one("SELECT key_id, tenant_id FROM control.find_key(:prefix)", prefix=prefix)
    if key is None:
        raise NoSuchKey(f"no key begins with parley_{prefix[:16]}")
    async with database.tenant(key["tenant_id"]) as session:
        changed = await session.execute(
            "UPDATE control.api_keys SET revoked_at = now() WHERE key_id = :id AND revoked_at IS NULL", id=key["key_id"]
        )
        if changed:
            await _decided(session, RevokeApiKey(key_id=key["key_id"]), ApiKeyRevoked(key_id=key["key_id"]), actor)
    await signals.send(REVOCATIONS, prefix)
    return bool(changed)


async def _decided(session: TenantSession, command: Payload, event: Payload, actor: str) -> None:
    asked = Envelope.first(command, id=new_id(), source=SOURCE, tenant_id=session.tenant_id, actor=actor)
    await outbox.add(session, asked.caused(event, id=new_id(), source=SOURCE))
