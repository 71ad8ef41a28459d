"""API keys of a tenant: issued, rotated and revoked by whoever may, and never with more than they have themselves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from backplane.ports.database import Database, Row, TenantSession
from backplane.ports.identifiers import new_id
from backplane.ports.token_stream import Signals
from backplane.security.api_key import ApiKey
from backplane.security.authenticator import REVOCATIONS, revocation
from backplane.security.permissions import GRANTS, lesser
from backplane.security.principal import Principal
from backplane.settings import Settings
from command_api import outbox
from command_api.admission import Refused
from event_schemas.control_plane import ApiKeyIssued, ApiKeyRevoked, IssueApiKey, KeyRole, RevokeApiKey
from event_schemas.people import ApiKeyRotated, RotateApiKey

SOURCE = "/parley/command_api"


class NoSuchUser(LookupError):
    """Not there, removed, or somebody else's."""


class NoSuchKey(LookupError):
    """Not there, or not to be seen by who asks."""


class KeyEnded(Exception):
    """It was revoked or has expired, so it cannot be rotated."""


class MayNot(Exception):
    """The caller has less than what they would give or take. The message says what."""


@dataclass(frozen=True, slots=True)
class Wanted:
    name: str
    role: KeyRole
    user_id: UUID | None
    models: tuple[str, ...] | None
    personas: tuple[str, ...] | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Issued:
    key_id: UUID
    key: ApiKey


@dataclass(frozen=True, slots=True)
class Rotated:
    key: ApiKey
    former_ends_at: datetime


async def add(session: TenantSession, pepper: str, command: IssueApiKey, actor: str) -> ApiKey:
    """Make the key that ``command`` asks for, in the transaction that decided so."""
    key = ApiKey.make()
    await session.execute(
        "INSERT INTO control.api_keys"
        " (key_id, tenant_id, user_id, role, name, prefix, secret_hash, expires_at, models, personas) VALUES"
        " (:key_id, :tenant_id, :user_id, :role, :name, :prefix, :secret_hash, :expires_at, :models, :personas)",
        tenant_id=session.tenant_id,
        prefix=key.prefix,
        secret_hash=key.hashed(pepper),
        **command.model_dump(),
    )
    await outbox.decided(session, SOURCE, command, ApiKeyIssued(**command.model_dump(), prefix=key.prefix), actor)
    return key


async def revoke(database: Database, signals: Signals, tenant_id: UUID, key_id: UUID, actor: str) -> bool:
    """Revoke a key with the sessions that it began, at once on every process. False if it was revoked already."""
    async with database.tenant(tenant_id) as session:
        changed = await session.execute(
            "UPDATE control.api_keys SET revoked_at = now() WHERE key_id = :id AND revoked_at IS NULL", id=key_id
        )
        if changed:
            command, event = RevokeApiKey(key_id=key_id), ApiKeyRevoked(key_id=key_id)
            await outbox.decided(session, SOURCE, command, event, actor)
    await signals.send(REVOCATIONS, revocation("key", key_id))
    return bool(changed)


class ApiKeys:
    def __init__(self, database: Database, signals: Signals, pepper: str, settings: Settings) -> None:
        self._database = database
        self._signals = signals
        self._pepper = pepper
        self._settings = settings

    async def issue(self, principal: Principal, wanted: Wanted) -> Issued:
        """Raises Refused, MayNot, DatabaseUnavailable."""
        self._check(principal, wanted)
        command = IssueApiKey(
            key_id=new_id(),
            user_id=wanted.user_id,
            role=wanted.role,
            name=wanted.name,
            expires_at=wanted.expires_at,
            models=wanted.models,
            personas=wanted.personas,
        )
        async with self._database.tenant(principal.tenant_id) as session:
            if wanted.user_id is not None:
                user = await session.one(
                    "SELECT role FROM control.users WHERE user_id = :id AND removed_at IS NULL FOR SHARE",
                    id=wanted.user_id,
                )
                if user is None:
                    raise NoSuchUser
                if lesser(wanted.role, user["role"]) != wanted.role:
                    raise Refused(
                        "user-may-less",
                        "body.role",
                        f"The user has the role {user['role']!r}, so a key of theirs cannot be {wanted.role!r}.",
                    )
            return Issued(command.key_id, await add(session, self._pepper, command, principal.actor))

    async def revoke(self, principal: Principal, key_id: UUID) -> bool:
        """False if it was revoked already. Raises NoSuchKey, MayNot, DatabaseUnavailable."""
        async with self._database.tenant(principal.tenant_id) as session:
            row = await _visible(session, principal, key_id)
        _check_role(principal, row["role"])
        return await revoke(self._database, self._signals, principal.tenant_id, key_id, principal.actor)

    async def rotate(self, principal: Principal, key_id: UUID, overlap: timedelta) -> Rotated:
        """Give the key a new secret; the one it has goes on working for ``overlap``, any earlier one ends.

        Raises NoSuchKey, KeyEnded, MayNot, DatabaseUnavailable.
        """
        key, former_ends_at = ApiKey.make(), datetime.now(UTC) + overlap
        async with self._database.tenant(principal.tenant_id) as session:
            row = await _visible(session, principal, key_id)
            if row["ended"]:
                raise KeyEnded
            # Who rotates a key sees its new secret.
            _check_role(principal, row["role"])
            _check_scopes(principal, row["models"], row["personas"], row["expires_at"])
            await session.execute(
                "UPDATE control.api_keys SET former_prefix = prefix, former_secret_hash = secret_hash,"
                " former_ends_at = :former_ends_at, prefix = :prefix, secret_hash = :secret_hash WHERE key_id = :id",
                id=key_id,
                former_ends_at=former_ends_at,
                prefix=key.prefix,
                secret_hash=key.hashed(self._pepper),
            )
            event = ApiKeyRotated(
                key_id=key_id, prefix=key.prefix, former_prefix=row["prefix"], former_ends_at=former_ends_at
            )
            command = RotateApiKey(key_id=key_id, former_ends_at=former_ends_at)
            await outbox.decided(session, SOURCE, command, event, principal.actor)
        await self._signals.send(REVOCATIONS, revocation("key", key_id))
        return Rotated(key, former_ends_at)

    def _check(self, principal: Principal, wanted: Wanted) -> None:
        if not principal.may("keys.all") and (principal.user_id is None or wanted.user_id != principal.user_id):
            raise MayNot(f"The role {principal.role!r} issues keys for its own user only.")
        _check_role(principal, wanted.role)
        for model in wanted.models or ():
            if self._settings.pool_of(model) is None and model not in self._settings.knowledge.embedders:
                raise Refused("unknown-model", "body.models", f"There is no model {model!r}.")
        if wanted.expires_at is not None and wanted.expires_at <= datetime.now(UTC):
            raise Refused("already-expired", "body.expires_at", "The key would have expired before it was issued.")
        _check_scopes(principal, wanted.models, wanted.personas, wanted.expires_at)


async def _visible(session: TenantSession, principal: Principal, key_id: UUID) -> Row:
    row = await session.one(
        "SELECT key_id, user_id, role, prefix, models, personas, expires_at,"
        " revoked_at IS NOT NULL OR coalesce(expires_at <= now(), false) AS ended"
        " FROM control.api_keys WHERE key_id = :id FOR UPDATE",
        id=key_id,
    )
    if row is None:
        raise NoSuchKey
    own = key_id == principal.key_id or (principal.user_id is not None and row["user_id"] == principal.user_id)
    if not own and not principal.may("keys.all"):
        raise NoSuchKey
    return row


def _check_role(principal: Principal, role: KeyRole) -> None:
    if role not in GRANTS[principal.role]:
        raise MayNot(f"The role {principal.role!r} may not issue, rotate or revoke keys of the role {role!r}.")


def _check_scopes(
    principal: Principal,
    models: tuple[str, ...] | list[str] | None,
    personas: tuple[str, ...] | list[str] | None,
    expires_at: datetime | None,
) -> None:
    for what, own, given in (("models", principal.models, models), ("personas", principal.personas, personas)):
        if own is not None and (given is None or not own.issuperset(given)):
            raise MayNot(f"Your own key is limited to the {what} {', '.join(sorted(own))}; name no others.")
    if principal.expires_at is not None and (expires_at is None or expires_at > principal.expires_at):
        raise MayNot(f"Your own key ends at {principal.expires_at.isoformat()}; no key that you issue may end later.")
