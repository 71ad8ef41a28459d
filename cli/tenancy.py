"""Tenants and keys at the command line, through the command API's own handlers."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import UUID

from backplane.ports.database import Database
from backplane.settings import Settings
from backplane.wiring.embedded import completed, owner_database, role_database
from backplane.wiring.services import command_side
from cli import data_folder
from cli.failures import CommandError
from command_api import content_policy as content_policies
from command_api import tenancy
from command_api.api_keys import NoSuchKey
from event_schemas.control_plane import KeyRole
from event_schemas.envelope import PLATFORM
from event_schemas.erasure import ContentPolicy
from event_schemas.share import Priority, Share

FIRST_TENANT = "default"
_PUBLIC = re.compile(r"^(?:parley_)?(?P<prefix>[0-9a-f]{16})(?:_[0-9a-f]{64})?$")


async def find_tenant(settings: Settings, wanted: str) -> UUID:
    """The tenant with this id or name. Raises CommandError where there is none, or several have the name."""
    found = await _tenants(settings, wanted)
    if len(found) == 1:
        return found[0]
    if found:
        raise CommandError(
            f"{len(found)} tenants are named {wanted!r}; give one's id instead: {', '.join(map(str, found))}"
        )
    raise CommandError(f"there is no tenant {wanted!r}; make one with `parley tenant create {wanted}`")


async def create_tenant(settings: Settings, name: str) -> UUID:
    """Raises CommandError where the name is taken or unusable."""
    async with _as_command_api(settings) as database:
        try:
            return await tenancy.provision_tenant(database, name)
        except tenancy.NameTaken as taken:
            raise CommandError(str(taken)) from None
        except ValueError:
            raise CommandError(f"{name!r} cannot name a tenant: use 1 to 200 characters") from None


async def suspend_tenant(settings: Settings, tenant_id: UUID) -> bool:
    """False if it was suspended already. Raises CommandError for the platform's own."""
    if tenant_id == PLATFORM:
        raise CommandError("the platform's own tenant cannot be suspended; revoke its keys instead")
    async with command_side(completed(settings)) as side:
        return await tenancy.suspend(side.database, side.signals, tenant_id)


async def resume_tenant(settings: Settings, tenant_id: UUID) -> bool:
    """False if it was not suspended."""
    async with command_side(completed(settings)) as side:
        return await tenancy.resume(side.database, side.signals, tenant_id)


async def set_share(settings: Settings, tenant_id: UUID, weight: int | None, priority: Priority | None) -> Share:
    """Change what is given of a tenant's share. Returns all of it."""
    async with _as_command_api(settings) as database:
        return await tenancy.set_share(database, tenant_id, weight=weight, priority=priority)


async def set_content_policy(
    settings: Settings, tenant_id: UUID, keeps_content: bool | None, content_days: int | None
) -> ContentPolicy:
    """Change what is given of it; 0 days: never erased by age. Returns all of it."""
    async with _as_command_api(settings) as database:
        policy = await content_policies.content_policy(database, tenant_id)
        if keeps_content is not None:
            policy = policy.model_copy(update={"keeps_content": keeps_content})
        if content_days is not None:
            policy = policy.model_copy(update={"content_days": content_days or None})
        await content_policies.set_content_policy(database, tenant_id, policy)
    return policy


async def issue_key(
    settings: Settings,
    tenant_id: UUID,
    role: KeyRole,
    *,
    name: str = "",
    user: str | None = None,
    expires_at: datetime | None = None,
) -> str:
    """A new key, whole; it cannot be shown again. A ``user`` is made, with ``role``, where there is none of that name.

    Raises CommandError where the tenant cannot have such a key, or the user such a role.
    """
    if (role == "platform") != (tenant_id == PLATFORM):
        raise CommandError("keys of the tenant `platform` have the role platform, and no others have it")
    pepper = completed(settings).security.key_pepper
    assert pepper is not None
    async with _as_command_api(settings) as database:
        user_id = None if user is None else await tenancy.invite_user(database, tenant_id, user, role)
        try:
            key = await tenancy.issue_key(
                database,
                pepper.get_secret_value(),
                tenant_id,
                role,
                name=name,
                user_id=user_id,
                expires_at=expires_at,
            )
        except tenancy.UserMayLess as less:
            raise CommandError(
                f"{user!r} is {less.args[0]}, so a key of theirs cannot be {role}; change the user's role first"
            ) from None
    return key.reveal()


async def revoke_key(settings: Settings, key: str) -> bool:
    """Revoke a key by itself or its public part. False if it was revoked already. Raises CommandError."""
    prefix = _PUBLIC.match(key)
    if prefix is None:
        raise CommandError("a key looks like parley_<16 digits>_<secret>; give it, or its part up to the second `_`")
    async with command_side(completed(settings)) as side:
        try:
            return await tenancy.revoke_key(side.database, side.signals, prefix["prefix"])
        except NoSuchKey as error:
            raise CommandError(str(error)) from None


async def first_admin_key(settings: Settings) -> str | None:
    """Make the first tenant and its admin key, and keep the key in the data folder. None where it is there."""
    if data_folder.admin_key_file(settings.data_dir).exists():
        return None
    found = await _tenants(settings, FIRST_TENANT)
    tenant_id = found[0] if found else await create_tenant(settings, FIRST_TENANT)
    key = await issue_key(settings, tenant_id, "admin", name="first admin key")
    data_folder.write_admin_key(settings.data_dir, key)
    return key


async def _tenants(settings: Settings, wanted: str) -> list[UUID]:
    try:
        UUID(wanted)
        column = "tenant_id::text"
        wanted = str(UUID(wanted))
    except ValueError:
        column = "name"
    database = owner_database(settings)
    try:
        async with database.system() as session:
            rows = await session.all(
                f"SELECT tenant_id FROM control.tenants WHERE {column} = :wanted ORDER BY created_at",  # noqa: S608
                wanted=wanted,
            )
    finally:
        await database.close()
    return [row["tenant_id"] for row in rows]


@asynccontextmanager
async def _as_command_api(settings: Settings) -> AsyncIterator[Database]:
    database = role_database(settings, "command_api")
    try:
        yield database
    finally:
        await database.close()
