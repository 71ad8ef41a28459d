"""Signing in with an OpenID Connect provider: to a tenant, for who was invited to it or is of its domains."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import asdict
from hmac import compare_digest
from uuid import UUID

from backplane.ports.database import Database, Row, TenantSession
from backplane.ports.identifiers import new_id
from backplane.security.oidc import Challenge, Identity, OidcFailed, OidcProvider
from backplane.security.sealing import CannotOpen, MasterKey
from backplane.settings import OidcSettings
from command_api import outbox
from command_api.sessions import Begun, Sessions, Suspended
from event_schemas.control_plane import InviteUser, UserInvited
from event_schemas.people import AcceptInvitation, InvitationAccepted

SOURCE = "/parley/command_api"

LASTS_S = 600
"""How long somebody may take at the provider."""


class NoSuchProvider(LookupError):
    """The settings name none of this name."""


class NotInvited(Exception):
    """The provider says who it is, and the tenant does not know them."""


class OidcSignIn:
    def __init__(
        self, database: Database, sessions: Sessions, master_key: MasterKey, providers: Mapping[str, OidcSettings]
    ) -> None:
        self._database = database
        self._sessions = sessions
        self._master_key = master_key
        self._providers = {name: OidcProvider(settings) for name, settings in providers.items()}

    @property
    def names(self) -> list[str]:
        return list(self._providers)

    async def begin(self, name: str, redirect_uri: str) -> tuple[str, str]:
        """The provider's address to send the browser to, and what the browser keeps meanwhile, sealed.

        Raises NoSuchProvider, OidcFailed.
        """
        challenge = Challenge.make()
        url = await self._provider(name).url(challenge, redirect_uri)
        kept = json.dumps({**asdict(challenge), "until": time.time() + LASTS_S})
        return url, urlsafe_b64encode(self._master_key.seal(kept, _place(name))).decode()

    async def finish(self, name: str, kept: str, state: str, code: str, redirect_uri: str) -> Begun:
        """A session for whoever came back from the provider with ``state`` and ``code``.

        Raises NoSuchProvider, OidcFailed, NotInvited, Suspended, DatabaseUnavailable.
        """
        provider = self._provider(name)
        if not code:
            raise OidcFailed("the provider let nobody in")
        challenge = self._opened(name, kept)
        if not compare_digest(challenge.state.encode(), state.encode()):
            raise OidcFailed("what came back belongs to another attempt to sign in")
        identity = await provider.identity(code, challenge, redirect_uri)
        tenant_id = provider.settings.tenant
        async with self._database.tenant(tenant_id) as session:
            user_id = await _user(session, identity, provider.settings)
        return await self._sessions.begin(tenant_id, user_id, None, "oidc")

    def _provider(self, name: str) -> OidcProvider:
        if name not in self._providers:
            raise NoSuchProvider(name)
        return self._providers[name]

    def _opened(self, name: str, kept: str) -> Challenge:
        try:
            found = json.loads(self._master_key.open(urlsafe_b64decode(kept), _place(name)))
        except (CannotOpen, ValueError):
            raise OidcFailed("this browser began no attempt to sign in") from None
        if found.pop("until") < time.time():
            raise OidcFailed(f"it took longer than {LASTS_S} s; try again")
        return Challenge(**found)


def _place(name: str) -> str:
    return f"oidc_sign_in/{name}"


async def _user(session: TenantSession, identity: Identity, settings: OidcSettings) -> UUID:
    tenant = await session.one(
        "SELECT suspended_at FROM control.tenants WHERE tenant_id = :tenant_id", tenant_id=session.tenant_id
    )
    if tenant is None:
        raise OidcFailed("the settings sign it in to a tenant that is not there")
    known = await _known(session, identity)
    if known is None:
        domain = (identity.email or "").rpartition("@")[2].lower()
        if not domain or domain not in settings.domains:
            raise NotInvited
        return await _made(session, identity, settings)
    if known["suspended_at"] is not None or tenant["suspended_at"] is not None:
        raise Suspended
    user_id: UUID = known["user_id"]
    if known["subject"] is None:
        await session.execute(
            "UPDATE control.users SET issuer = :issuer, subject = :subject, joined_at = coalesce(joined_at, now())"
            " WHERE user_id = :user_id",
            user_id=user_id,
            issuer=identity.issuer,
            subject=identity.subject,
        )
        await _joined(session, user_id)
    return user_id


async def _known(session: TenantSession, identity: Identity) -> Row | None:
    """By the provider's name for them; else by a verified address of who has come with none before."""
    return await session.one(
        "SELECT user_id, suspended_at, subject FROM control.users WHERE removed_at IS NULL AND"
        " ((issuer = :issuer AND subject = :subject) OR (subject IS NULL AND lower(email) = lower(:email)))"
        " ORDER BY subject NULLS LAST LIMIT 1 FOR UPDATE",
        issuer=identity.issuer,
        subject=identity.subject,
        email=identity.email,
    )


async def _made(session: TenantSession, identity: Identity, settings: OidcSettings) -> UUID:
    user_id = new_id()
    name = (identity.name or "").strip()[:150]
    if "@" in name:  # some providers give the address for a name, and names are in events
        name = ""
    for unique in (name, f"{name} {user_id}".strip()):
        command = InviteUser(user_id=user_id, name=unique or str(user_id), role=settings.role)
        if await session.execute(
            "INSERT INTO control.users (user_id, tenant_id, name, role, email, issuer, subject, joined_at) VALUES"
            " (:user_id, :tenant_id, :name, :role, :email, :issuer, :subject, now()) ON CONFLICT DO NOTHING",
            tenant_id=session.tenant_id,
            email=identity.email,
            issuer=identity.issuer,
            subject=identity.subject,
            **command.model_dump(),
        ):
            await outbox.decided(session, SOURCE, command, UserInvited(**command.model_dump()), f"user:{user_id}")
            await _joined(session, user_id)
            return user_id
    raise NotInvited  # the address is another user's, who comes with another name at the provider


async def _joined(session: TenantSession, user_id: UUID) -> None:
    command, event = AcceptInvitation(user_id=user_id), InvitationAccepted(user_id=user_id)
    await outbox.decided(session, SOURCE, command, event, f"user:{user_id}")
