"""Browser sessions: begun with a password, an API key or an OIDC provider's word, and ended by whose they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from backplane.ports.database import Database, Row, TenantSession
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

MOST_ACCOUNTS = 8
"""Of one e-mail address, whose passwords are looked at where no tenant is named; those that were made first."""


class NoSuchSession(LookupError):
    """Not there, or somebody else's."""


class WrongPassword(Exception):
    """Or no such account, or it fits several: nobody is told which."""


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
        """Without ``tenant_id`` the password says which of the accounts of that e-mail address is meant; where it fits
        several, nobody signs in. ``address`` is the caller's.

        Takes as long for an unknown account as for a wrong password. Raises TooManyAttempts, WrongPassword, Suspended,
        DatabaseUnavailable.
        """
        found = await self._database.at_once(
            "SELECT * FROM control.find_sign_in(:email, :tenant_id)"
            " ORDER BY password_hash IS NULL, user_id LIMIT :most",
            email=email,
            tenant_id=tenant_id,
            most=MOST_ACCOUNTS,
        )
        accounts = {account["user_id"]: account for account in found}
        try:
            waits = await self._attempts.count(tuple(accounts) or (email,), address)
        except TooManyAttempts:
            self._refused(found, "too-many-attempts")
            raise
        fitting = await self._fitting([accounts.get(one) for one, wait_s in waits.items() if not wait_s], password)
        if len(fitting) != 1:
            waiting = [account for account in found if waits[account["user_id"]]]
            self._refused(waiting, "too-many-attempts")
            self._refused([one for one in found if one not in (*waiting, *fitting)], "wrong-password")
            if not fitting and any(waits.values()):
                raise TooManyAttempts(min(wait_s for wait_s in waits.values() if wait_s))
            raise WrongPassword
        (account,) = fitting
        if account["suspended"]:
            self._refused(fitting, "suspended")
            raise Suspended
        # Whoever has an account of this address elsewhere has been tried, too, and that stays counted: else each who
        # can sign in to one could try as many passwords on the other.
        await self._attempts.succeeded(account["user_id"], address)
        return await self.begin(account["tenant_id"], account["user_id"], None, "password")

    async def _fitting(self, accounts: Sequence[Row | None], password: str) -> list[Row]:
        """None stands for an account that nobody has."""
        fitting = []
        for account in accounts:
            stored = None if account is None else account["password_hash"]
            if await self._passwords.matches(stored, password) and account is not None:
                fitting.append(account)
        return fitting

    def _refused(self, accounts: Iterable[Row], reason: str) -> None:
        for account in accounts:
            self._refusals.count_sign_in(account["tenant_id"], account["user_id"], reason)

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
