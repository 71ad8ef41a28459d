"""The users of a tenant: invited, given a role, suspended, removed. Their keys and sessions follow."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from backplane.ports.database import Database, Row, TenantSession
from backplane.ports.identifiers import new_id
from backplane.ports.token_stream import Signals
from backplane.security import secret_token
from backplane.security.authenticator import REVOCATIONS, revocation
from backplane.security.password import Passwords
from backplane.security.permissions import GRANTS
from backplane.security.principal import Principal
from command_api import outbox
from command_api.api_keys import MayNot, NoSuchUser
from event_schemas.control_plane import InviteUser, KeyRole, UserInvited
from event_schemas.payload import Payload
from event_schemas.people import (
    AcceptInvitation,
    ChangeUserRole,
    InvitationAccepted,
    InvitationRenewed,
    RemoveUser,
    RenewInvitation,
    ResumeUser,
    SuspendUser,
    UserRemoved,
    UserResumed,
    UserRoleChanged,
    UserSuspended,
)

SOURCE = "/parley/command_api"


class NoSuchInvitation(LookupError):
    """Unknown, used, replaced or expired; or its user or tenant may not come in."""


class UserExists(Exception):
    """The tenant has a user of that name or e-mail address."""


@dataclass(frozen=True, slots=True)
class Invitation:
    user_id: UUID
    token: str
    """Lets whoever has it set the user's password, once. It is shown now and never again."""
    expires_at: datetime


class People:
    def __init__(
        self, database: Database, signals: Signals, pepper: str, passwords: Passwords, invitation_hours: int
    ) -> None:
        self._database = database
        self._signals = signals
        self._pepper = pepper
        self._passwords = passwords
        self._lasts = timedelta(hours=invitation_hours)

    async def invite(self, principal: Principal, name: str | None, email: str, role: KeyRole) -> Invitation:
        """Make a user who has yet to set a password; with no name, they are called as their id.

        Raises MayNot, UserExists, DatabaseUnavailable.
        """
        _check_role(principal, role)
        if principal.models is not None or principal.personas is not None:
            raise MayNot("Your own key is limited to some models or personas; users that it invited would not be.")
        user_id = new_id()
        command = InviteUser(user_id=user_id, name=name or str(user_id), role=role)
        async with self._database.tenant(principal.tenant_id) as session:
            made = await session.execute(
                "INSERT INTO control.users (user_id, tenant_id, name, email, role)"
                " VALUES (:user_id, :tenant_id, :name, :email, :role) ON CONFLICT DO NOTHING",
                tenant_id=principal.tenant_id,
                email=email,
                **command.model_dump(),
            )
            if not made:
                raise UserExists
            await outbox.decided(session, SOURCE, command, UserInvited(**command.model_dump()), principal.actor)
            return await self._invitation(session, command.user_id)

    async def renew_invitation(self, principal: Principal, user_id: UUID) -> Invitation:
        """A new token, for who lost theirs or forgot the password; the one before is void.

        Raises NoSuchUser, MayNot, DatabaseUnavailable.
        """
        async with self._database.tenant(principal.tenant_id) as session:
            await _changeable(session, principal, user_id)
            made = await self._invitation(session, user_id)
            command = RenewInvitation(user_id=user_id, expires_at=made.expires_at)
            event = InvitationRenewed(user_id=user_id, expires_at=made.expires_at)
            await outbox.decided(session, SOURCE, command, event, principal.actor)
        return made

    async def accept(self, token: str, password: str) -> tuple[UUID, UUID]:
        """Set the password that the user will sign in with. Returns the ids of the tenant and of the user.

        Raises NoSuchInvitation, DatabaseUnavailable.
        """
        token_hash = secret_token.hashed(token, "invitation", self._pepper)
        found = await self._database.at_once("SELECT * FROM control.find_invitation(:wanted)", wanted=token_hash)
        if not found or found[0]["expires_at"] <= datetime.now(UTC):
            raise NoSuchInvitation
        tenant_id, user_id = found[0]["tenant_id"], found[0]["user_id"]
        password_hash = await self._passwords.hashed(password)
        async with self._database.tenant(tenant_id) as session:
            # Of two that accept it at once, and of one that is replaced meanwhile, this decides.
            used = await session.execute(
                "DELETE FROM control.invitations WHERE user_id = :user_id AND expires_at = :expires_at",
                user_id=user_id,
                expires_at=found[0]["expires_at"],
            )
            if not used:
                raise NoSuchInvitation
            await session.execute(
                "UPDATE control.users SET password_hash = :password_hash, joined_at = coalesce(joined_at, now())"
                " WHERE user_id = :user_id",
                password_hash=password_hash,
                user_id=user_id,
            )
            await _end_sessions(session, user_id)
            command, event = AcceptInvitation(user_id=user_id), InvitationAccepted(user_id=user_id)
            await outbox.decided(session, SOURCE, command, event, f"user:{user_id}")
        await self._signals.send(REVOCATIONS, revocation("user", user_id))
        return tenant_id, user_id

    async def change_role(self, principal: Principal, user_id: UUID, role: KeyRole) -> None:
        """Raises NoSuchUser, MayNot, DatabaseUnavailable."""
        _check_role(principal, role)
        async with self._database.tenant(principal.tenant_id) as session:
            before = await _changeable(session, principal, user_id)
            if before["role"] != role:
                await session.execute(
                    "UPDATE control.users SET role = :role WHERE user_id = :id", id=user_id, role=role
                )
                command, event = ChangeUserRole(user_id=user_id, role=role), UserRoleChanged(user_id=user_id, role=role)
                await outbox.decided(session, SOURCE, command, event, principal.actor)
        await self._signals.send(REVOCATIONS, revocation("user", user_id))

    async def suspend(self, principal: Principal, user_id: UUID) -> None:
        """None of the user's keys and sessions works until `resume`. Raises NoSuchUser, MayNot, DatabaseUnavailable."""
        await self._change(principal, user_id, SuspendUser(user_id=user_id), UserSuspended(user_id=user_id))

    async def resume(self, principal: Principal, user_id: UUID) -> None:
        """Raises NoSuchUser, MayNot, DatabaseUnavailable."""
        await self._change(principal, user_id, ResumeUser(user_id=user_id), UserResumed(user_id=user_id))

    async def remove(self, principal: Principal, user_id: UUID) -> None:
        """End the user's keys and sessions and forget what they signed in with, for ever. What they wrote stays.

        Raises NoSuchUser, MayNot, DatabaseUnavailable.
        """
        await self._change(principal, user_id, RemoveUser(user_id=user_id), UserRemoved(user_id=user_id))

    async def _change(
        self, principal: Principal, user_id: UUID, command: SuspendUser | ResumeUser | RemoveUser, event: Payload
    ) -> None:
        async with self._database.tenant(principal.tenant_id) as session:
            before = await _changeable(session, principal, user_id)
            if isinstance(command, RemoveUser):
                await _remove(session, user_id)
                changes = True
            else:
                suspends = isinstance(command, SuspendUser)
                changes = suspends != (before["suspended_at"] is not None)
                await session.execute(
                    "UPDATE control.users SET suspended_at = CASE WHEN :suspends THEN coalesce(suspended_at, now()) END"
                    " WHERE user_id = :id",
                    id=user_id,
                    suspends=suspends,
                )
            if changes:
                await outbox.decided(session, SOURCE, command, event, principal.actor)
        await self._signals.send(REVOCATIONS, revocation("user", user_id))

    async def _invitation(self, session: TenantSession, user_id: UUID) -> Invitation:
        made = Invitation(user_id, secret_token.make(), datetime.now(UTC) + self._lasts)
        await session.execute("DELETE FROM control.invitations WHERE user_id = :id", id=user_id)
        await session.execute(
            "INSERT INTO control.invitations (user_id, tenant_id, token_hash, expires_at)"
            " VALUES (:user_id, :tenant_id, :token_hash, :expires_at)",
            user_id=user_id,
            tenant_id=session.tenant_id,
            token_hash=secret_token.hashed(made.token, "invitation", self._pepper),
            expires_at=made.expires_at,
        )
        return made


async def _changeable(session: TenantSession, principal: Principal, user_id: UUID) -> Row:
    """The user, locked until the end of the transaction, if ``principal`` may change it."""
    row = await session.one(
        "SELECT role, suspended_at FROM control.users WHERE user_id = :id AND removed_at IS NULL FOR UPDATE", id=user_id
    )
    if row is None:
        raise NoSuchUser
    _check_role(principal, row["role"])
    return row


def _check_role(principal: Principal, role: KeyRole) -> None:
    if role not in GRANTS[principal.role]:
        raise MayNot(f"The role {principal.role!r} may neither make nor change users of the role {role!r}.")


async def _remove(session: TenantSession, user_id: UUID) -> None:
    await session.execute(
        "UPDATE control.users SET removed_at = now(), email = NULL, password_hash = NULL, issuer = NULL, subject = NULL"
        " WHERE user_id = :id",
        id=user_id,
    )
    await session.execute("DELETE FROM control.invitations WHERE user_id = :id", id=user_id)
    await session.execute(
        "UPDATE control.api_keys SET revoked_at = now() WHERE user_id = :id AND revoked_at IS NULL", id=user_id
    )
    await _end_sessions(session, user_id)


async def _end_sessions(session: TenantSession, user_id: UUID) -> None:
    await session.execute(
        "UPDATE control.sessions SET ended_at = now() WHERE user_id = :id AND ended_at IS NULL", id=user_id
    )
