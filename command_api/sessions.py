"""Browser sessions: begun with a password, an API key or an OIDC provider's word, and ended by whose they are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from backplane.ports.database import Database, TenantSession
from backplane.ports.identifiers import new_id
from backplane.ports.token_stream import Signals
from backplane.security import secret_token
from backplane.security.authenticator import REVOCATIONS, revocation
from backplane.security.password import Passwords
from backplane.security.principal import Principal
from command_api import outbox
from command_api.refusals import Refusals
from command_api.sign_in_attempts import SignInAttempts, TooManyAttempts
from event_schemas.people import BeginSession, EndSession, SessionBegun, SessionEnded, SignInMethod

SOURCE = "/parley/command_api"


class NoSuchSession(LookupError):
    """Not there, or somebody else's."""


class WrongPassword(Exception):
    """Or no such account, or several: nobody is told which."""


class Suspended(Exception):
    """The password is right, and its user or tenant is suspended."""


@dataclass(frozen=True, slots=True)
class Begun:
    session_id: UUID
    token: str
    """What the browser keeps. It is shown now and never again."""
    expires_at: datetime


class Sessions:
    def __init__(
        self,
        database: Database,
        signals: Signals,
        pepper: str,
        passwords: Passwords,
        refusals: Refusals,
        session_hours: int,
    ) -> None:
        self._database = database
        self._signals = signals
        self._pepper = pepper
        self._passwords = passwords
        self._refusals = refusals
        self._lasts = timedelta(hours=session_hours)
        self._attempts = SignInAttempts(database, pepper)

    async def sign_in(self, email: str, password: str, tenant_id: UUID | None, address: str) -> Begun:
        """``tenant_id`` is for who has accounts in several tenants; ``address`` is the caller's.

        Takes as long for an unknown account as for a wrong password. Raises TooManyAttempts, WrongPassword, Suspended,
        DatabaseUnavailable.
        """
        accounts = await self._database.at_once(
            "SELECT * FROM control.find_sign_in(:email, :tenant_id)", email=email, tenant_id=tenant_id
        )
        account = accounts[0] if len(accounts) == 1 else None
        counted_as = email if account is None else account["user_id"]
        refusal: Exception | None = None
        try:
            await self._attempts.count(counted_as, address)
            if not await self._passwords.matches(None if account is None else account["password_hash"], password):
                refusal, reason = WrongPassword(), "wrong-password"
            elif account is not None and account["suspended"]:
                refusal, reason = Suspended(), "suspended"
        except TooManyAttempts as too_many:
            refusal, reason = too_many, "too-many-attempts"
        if refusal is not None:
            if account is not None:
                self._refusals.count_sign_in(account["tenant_id"], account["user_id"], reason)
            raise refusal
        assert account is not None
        await self._attempts.succeeded(counted_as, address)
        return await self.begin(account["tenant_id"], account["user_id"], None, "password")

    async def exchange(self, principal: Principal) -> Begun:
        """A session that may what the API key may that ``principal`` came with, and ends with it at the latest.

        Raises DatabaseUnavailable.
        """
        return await self.begin(principal.tenant_id, principal.user_id, principal.key_id, "key", principal.expires_at)

    async def begin(
        self,
        tenant_id: UUID,
        user_id: UUID | None,
        key_id: UUID | None,
        method: SignInMethod,
        ends_by: datetime | None = None,
    ) -> Begun:
        """Somebody proved who they are. Raises DatabaseUnavailable."""
        expires_at = datetime.now(UTC) + self._lasts
        begun = Begun(new_id(), secret_token.make(), expires_at if ends_by is None else min(expires_at, ends_by))
        command = BeginSession(
            session_id=begun.session_id, user_id=user_id, key_id=key_id, method=method, expires_at=begun.expires_at
        )
        async with self._database.tenant(tenant_id) as session:
            await session.execute(
                "INSERT INTO control.sessions (session_id, tenant_id, user_id, key_id, method, token_hash, expires_at)"
                " VALUES (:session_id, :tenant_id, :user_id, :key_id, :method, :token_hash, :expires_at)",
                tenant_id=tenant_id,
                token_hash=secret_token.hashed(begun.token, "session", self._pepper),
                **command.model_dump(),
            )
            actor = f"key:{key_id}" if user_id is None else f"user:{user_id}"
            await outbox.decided(session, SOURCE, command, SessionBegun(**command.model_dump()), actor)
        return begun

    async def end(self, principal: Principal, session_id: UUID) -> None:
        """End a session of one's own, at once on every process. Raises NoSuchSession, DatabaseUnavailable."""
        async with self._database.tenant(principal.tenant_id) as session:
            if await self._own(session, principal, session_id):
                await session.execute(
                    "UPDATE control.sessions SET ended_at = now() WHERE session_id = :id", id=session_id
                )
                command, event = EndSession(session_id=session_id), SessionEnded(session_id=session_id)
                await outbox.decided(session, SOURCE, command, event, principal.actor)
        await self._signals.send(REVOCATIONS, revocation("session", session_id))

    async def _own(self, session: TenantSession, principal: Principal, session_id: UUID) -> bool:
        """Whether it goes on."""
        row = await session.one(
            "SELECT ended_at FROM control.sessions WHERE session_id = :id AND CASE WHEN CAST(:user_id AS uuid) IS NULL"
            " THEN user_id IS NULL AND key_id = :key_id ELSE user_id = :user_id END FOR UPDATE",
            id=session_id,
            user_id=principal.user_id,
            key_id=principal.key_id,
        )
        if row is None:
            raise NoSuchSession
        return row["ended_at"] is None
