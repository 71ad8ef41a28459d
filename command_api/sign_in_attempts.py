"""How often somebody tried to sign in: counted in Postgres, so that it holds on all processes together."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Collection
from uuid import UUID

from backplane.ports.database import Database

_FREE_OF_ACCOUNT, _FREE_OF_ADDRESS = 5, 30
_LONGEST_WAIT_S = 900
_FORGET_HOURS = 24

_COUNT = """
    INSERT INTO control.sign_in_attempts AS a (subject, attempts, next_at, forget_at)
    VALUES (:subject, 1, now(), now() + make_interval(hours => :forget_hours))
    ON CONFLICT (subject) DO UPDATE SET
      attempts = CASE WHEN a.forget_at <= now() THEN 1 ELSE a.attempts + 1 END,
      next_at = now() + CASE WHEN a.forget_at <= now() OR a.attempts + 1 < :free THEN interval '0'
        ELSE make_interval(secs => least(:longest_s, power(2, least(a.attempts + 1 - :free, 30)))) END,
      forget_at = now() + make_interval(hours => :forget_hours)
    WHERE a.next_at <= now()
"""


class TooManyAttempts(Exception):
    """``wait_s``: whole seconds until the next attempt is looked at."""

    def __init__(self, wait_s: int) -> None:
        super().__init__(f"too many attempts to sign in; the next one is looked at in {wait_s} s")
        self.wait_s = wait_s


class SignInAttempts:
    """Each attempt is counted before its password is looked at, so that many at once are no more than many in turn.

    Five of an account and thirty of an address (of a /64 where it is IPv6) go without a wait; then each doubles it, up
    to a quarter of an hour. A day without an attempt forgets them. An account is a user where there is one, else what
    was typed: users of one e-mail address share no count.
    """

    def __init__(self, database: Database, pepper: str) -> None:
        self._database = database
        self._pepper = pepper

    async def count(self, accounts: Collection[UUID | str], address: str) -> dict[UUID | str, int]:
        """One more of the address, and of each account. Gives how many seconds each of these still waits; 0: its
        password may be looked at.

        Raises TooManyAttempts where the address waits, DatabaseUnavailable.
        """
        if wait_s := await self._counted(self._address(address), _FREE_OF_ADDRESS):
            raise TooManyAttempts(wait_s)
        return {one: await self._counted(self._account(one), _FREE_OF_ACCOUNT) for one in accounts}

    async def _counted(self, subject: bytes, free: int) -> int:
        async with self._database.system() as session:
            if await session.execute(
                _COUNT, subject=subject, free=free, longest_s=float(_LONGEST_WAIT_S), forget_hours=_FORGET_HOURS
            ):
                return 0
            row = await session.one(
                "SELECT ceil(extract(epoch FROM next_at - now()))::integer AS wait_s"
                " FROM control.sign_in_attempts WHERE subject = :subject",
                subject=subject,
            )
        return 1 if row is None else max(1, row["wait_s"])

    async def succeeded(self, account: UUID | str, address: str) -> None:
        """The last one was right: it does not count, and those before it count against the address only.

        Raises DatabaseUnavailable.
        """
        async with self._database.system() as session:
            await session.execute(
                "DELETE FROM control.sign_in_attempts WHERE subject = :subject", subject=self._account(account)
            )
            await session.execute(
                "UPDATE control.sign_in_attempts SET attempts = greatest(0, attempts - 1), next_at = now()"
                " WHERE subject = :subject",
                subject=self._address(address),
            )

    def _account(self, account: UUID | str) -> bytes:
        return self._hashed(f"account/{str(account).casefold()}")

    def _address(self, address: str) -> bytes:
        try:
            known = ipaddress.ip_address(address)
        except ValueError:
            return self._hashed(f"address/{address}")
        if known.version == 6:
            return self._hashed(f"address/{ipaddress.ip_network((known, 64), strict=False)}")
        return self._hashed(f"address/{known}")

    def _hashed(self, subject: str) -> bytes:
        return hmac.digest(self._pepper.encode(), subject.encode(), hashlib.sha256)
