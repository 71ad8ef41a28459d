"""Signing in with a password: what is counted, what is told, and what is not."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import asyncpg
import pytest

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.ports.identifiers import new_id
from backplane.security.authenticator import Authenticator, NotAccepted
from backplane.security.password import Passwords
from backplane.security.principal import Principal
from command_api import tenancy
from command_api.outbox import Relay
from command_api.people import People
from command_api.refusals import Refusals
from command_api.sessions import MOST_ACCOUNTS, Begun, Sessions, Suspended, WrongPassword
from command_api.sign_in_attempts import TooManyAttempts
from event_schemas.people import SignInRefused
from tests.conftest import TestDatabase
from tests.integration.publications import Publications

PEPPER = "pepper"
PASSWORD = "correct horse battery staple"
ADDRESS = "192.0.2.7"


class Silence:
    async def send(self, channel: str, message: str) -> None: ...

    @asynccontextmanager
    async def listen(self, channel: str) -> AsyncIterator[AsyncIterator[str]]:
        async def none() -> AsyncIterator[str]:
            await asyncio.Event().wait()
            yield ""

        yield none()


@dataclass
class House:
    commands: PostgresDatabase
    owner: asyncpg.Connection
    people: People
    sessions: Sessions
    refusals: Refusals
    published: Publications

    async def user(self, email: str, password: str = PASSWORD) -> tuple[Principal, UUID]:
        """A user who accepted an invitation, and the owner of their tenant."""
        tenant = await tenancy.provision_tenant(self.commands, f"tenant {new_id()}")
        principal = Principal(tenant, new_id(), None, "owner")
        invitation = await self.people.invite(principal, "ada", email, "member")
        assert await self.people.accept(invitation.token, password) == (tenant, invitation.user_id)
        return principal, invitation.user_id

    async def sign_in(
        self, email: str, password: str = PASSWORD, tenant: UUID | None = None, address: str = ADDRESS
    ) -> Begun:
        return await self.sessions.sign_in(email, password, tenant, address)

    async def next_wait(self) -> int:
        """Seconds that the longest wait was when it was written; then it is over."""
        found: int = await self.owner.fetchval(
            "SELECT max(extract(epoch FROM next_at - forget_at + interval '24 hours'))::integer"
            " FROM control.sign_in_attempts"
        )
        await self.wait_over()
        return found

    async def wait_over(self) -> None:
        """As if the waits were over."""
        await self.owner.execute(
            "UPDATE control.sign_in_attempts SET next_at = now(), forget_at = now() + interval '24 hours'"
        )

    async def refused(self) -> list[tuple[UUID, str, int]]:
        await self.refusals.publish()
        told = [one.data for one in self.published.envelopes]
        return [(one.user_id, one.reason, one.count) for one in told if isinstance(one, SignInRefused)]


@pytest.fixture
async def house(database: TestDatabase) -> AsyncIterator[House]:
    commands = PostgresDatabase(database.role_url("command_api"), pool_size=8)
    owner = await asyncpg.connect(database.owner_url)
    published, passwords = Publications(), Passwords()
    refusals = Refusals(published, 60)
    people = People(commands, Silence(), PEPPER, passwords, 1)
    sessions = Sessions(commands, Silence(), PEPPER, passwords, refusals, 1)
    yield House(commands, owner, people, sessions, refusals, published)
    await owner.close()
    await commands.close()


async def test_who_signs_in_is_known_by_the_session_until_it_ends_or_is_idle(house: House) -> None:
    principal, user = await house.user("ada@example.com")
    begun = await house.sign_in("ADA@example.com")
    authenticator = Authenticator(house.commands, PEPPER, 0, idle_s=600)
    ada = await authenticator.session(begun.token)
    assert (ada.tenant_id, ada.user_id, ada.role, ada.session_id) == (
        principal.tenant_id,
        user,
        "member",
        begun.session_id,
    )
    # Use keeps it from going idle.
    await house.owner.execute("UPDATE control.sessions SET seen_at = now() - interval '599 s'")
    await authenticator.session(begun.token)
    assert await house.owner.fetchval("SELECT now() - seen_at < interval '60 s' FROM control.sessions")
    await house.owner.execute("UPDATE control.sessions SET seen_at = now() - interval '601 s'")
    with pytest.raises(NotAccepted, match="has expired"):
        await authenticator.session(begun.token)
    await house.owner.execute("UPDATE control.sessions SET seen_at = now(), expires_at = now()")
    with pytest.raises(NotAccepted, match="has expired"):
        await authenticator.session(begun.token)
    for unknown in ("", "x" * 64, "0" * 64):
        with pytest.raises(NotAccepted, match="unknown"):
            await authenticator.session(unknown)


async def test_neither_tokens_nor_passwords_are_stored(house: House) -> None:
    await house.user("ada@example.com")
    begun = await house.sign_in("ada@example.com")
    dump = ""
    for table in ("users", "sessions", "invitations", "sign_in_attempts", "outbox"):
        rows = await house.owner.fetch(f"SELECT t::text AS row FROM control.{table} t")
        dump += "".join(row["row"] for row in rows)
    dump += "".join(
        bytes(row["envelope"]).decode() for row in await house.owner.fetch("SELECT envelope FROM control.outbox")
    )
    assert "$argon2id$v=19$m=65536,t=3,p=4$" in dump
    for secret in (begun.token, PASSWORD, begun.token.encode().hex()):
        assert secret not in dump


async def test_the_same_characters_are_the_same_password_however_they_were_typed(house: House) -> None:
    await house.user("ada@example.com", "e\N{COMBINING ACUTE ACCENT}tude no. \N{DIGIT ONE} in C")
    assert await house.sign_in("ada@example.com", "\N{LATIN SMALL LETTER E WITH ACUTE}tude no. 1 in C")


async def test_a_wrong_password_and_an_unknown_account_are_told_alike(house: House) -> None:
    _, user = await house.user("ada@example.com")
    told = []
    for email in ("ada@example.com", "nobody@example.com"):
        with pytest.raises(WrongPassword) as raised:
            await house.sign_in(email, "wrong password, sorry")
        told.append(str(raised.value))
    assert told[0] == told[1]
    # Only what is of a tenant goes on its record, with nothing of what was typed.
    assert await house.refused() == [(user, "wrong-password", 1)]


async def test_an_address_of_several_tenants_signs_in_where_it_says(house: House) -> None:
    (first, _), (second, _) = await house.user("ada@example.com"), await house.user("ada@example.com")
    with pytest.raises(WrongPassword):
        await house.sign_in("ada@example.com")
    assert await house.refused() == [], "it was the password of both"
    for principal in (first, second):
        begun = await house.sign_in("ada@example.com", tenant=principal.tenant_id)
        known = await Authenticator(house.commands, PEPPER, 0).session(begun.token)
        assert known.tenant_id == principal.tenant_id


OTHER = "a stranger's own password"


async def test_whose_address_a_stranger_signs_up_with_signs_in_as_before(house: House) -> None:
    (first, ada), (second, stranger) = (
        await house.user("ada@example.com"),
        await house.user("ada@example.com", OTHER),
    )
    invited = Principal(await tenancy.provision_tenant(house.commands, "third"), new_id(), None, "owner")
    await house.people.invite(invited, "ada", "ada@example.com", "member")
    for password, principal in ((PASSWORD, first), (OTHER, second)):
        begun = await house.sign_in("ada@example.com", password)
        known = await Authenticator(house.commands, PEPPER, 0).session(begun.token)
        assert known.tenant_id == principal.tenant_id
    await house.people.suspend(second, stranger)
    with pytest.raises(Suspended):
        await house.sign_in("ada@example.com", OTHER)
    with pytest.raises(WrongPassword):
        await house.sign_in("ada@example.com", OTHER, first.tenant_id)
    assert sorted(await house.refused()) == sorted([(stranger, "suspended", 1), (ada, "wrong-password", 1)])


async def test_no_password_is_looked_at_that_is_not_counted(house: House) -> None:
    (first, ada), (_, stranger) = (
        await house.user("ada@example.com"),
        await house.user("ada@example.com", OTHER),
    )
    # Who signs in to one of them has tried the other, too.
    for _ in range(3):
        await house.sign_in("ada@example.com", OTHER)
    attempts = await house.owner.fetch("SELECT attempts FROM control.sign_in_attempts ORDER BY attempts")
    assert [row["attempts"] for row in attempts] == [0, 3], "of the address, and of ada"
    await house.owner.execute(
        "UPDATE control.sign_in_attempts SET next_at = now() + interval '15 minutes' WHERE attempts = 3"
    )
    with pytest.raises(TooManyAttempts):
        await house.sign_in("ada@example.com", tenant=first.tenant_id)
    # One that waits is in nobody else's way, and is not said to have another password.
    assert await house.sign_in("ada@example.com", OTHER)
    with pytest.raises(TooManyAttempts) as raised:
        await house.sign_in("ada@example.com")
    assert raised.value.wait_s > 800
    assert sorted(await house.refused()) == sorted([(ada, "too-many-attempts", 2), (stranger, "wrong-password", 1)])
    await house.wait_over()
    assert await house.sign_in("ada@example.com")


async def test_the_first_accounts_of_an_address_are_looked_at_and_nobodys_as_often_as_one(house: House) -> None:
    first, _ = await house.user("ada@example.com")
    for _ in range(MOST_ACCOUNTS):
        await house.user("ada@example.com", OTHER)
    house.sessions._passwords = looking = CountedPasswords()
    begun = await house.sign_in("ada@example.com")
    assert (await Authenticator(house.commands, PEPPER, 0).session(begun.token)).tenant_id == first.tenant_id
    assert looking.count == MOST_ACCOUNTS
    with pytest.raises(WrongPassword):
        await house.sign_in("nobody@example.com")
    assert looking.count == MOST_ACCOUNTS + 1


class CountedPasswords(Passwords):
    count = 0

    async def matches(self, stored: str | None, password: str) -> bool:
        self.count += 1
        return await super().matches(stored, password)


async def test_waits_grow_and_a_right_password_has_to_wait_too(house: House) -> None:
    _, user = await house.user("ada@example.com")
    passwords, house.sessions._passwords = house.sessions._passwords, NoPasswords()
    waits = []
    for place in range(17):
        with pytest.raises(WrongPassword):
            await house.sign_in("ada@example.com", address=f"198.51.100.{place}")
        waits.append(await house.next_wait())
    assert waits == [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]
    house.sessions._passwords = passwords
    await house.owner.execute("UPDATE control.sign_in_attempts SET next_at = now() + interval '15 minutes'")
    with pytest.raises(TooManyAttempts) as raised:
        await house.sign_in("ada@example.com", address="203.0.113.1")
    assert 800 < raised.value.wait_s <= 900
    await house.wait_over()
    await house.sign_in("ada@example.com")
    # What went wrong before is forgotten now.
    with pytest.raises(WrongPassword):
        await house.sign_in("ada@example.com", "wrong password, sorry")
    assert await house.next_wait() == 0
    assert sorted(await house.refused()) == [(user, "too-many-attempts", 1), (user, "wrong-password", 18)]


async def test_many_attempts_at_once_are_no_more_than_many_in_turn(house: House) -> None:
    await house.user("ada@example.com")
    house.sessions._passwords = NoPasswords()
    for _ in range(5):
        with pytest.raises(WrongPassword):
            await house.sign_in("ada@example.com")
    # The next one is followed by a wait of a quarter of an hour, which no slow machine makes a second of.
    await house.owner.execute("UPDATE control.sign_in_attempts SET attempts = 20, next_at = now()")
    answers = await asyncio.gather(
        *(house.sign_in("ada@example.com", address=f"192.0.2.{number}") for number in range(30)), return_exceptions=True
    )
    assert Counter(map(type, answers)) == {WrongPassword: 1, TooManyAttempts: 29}


async def test_who_signs_in_rightly_uses_up_nobodys_attempts(house: House) -> None:
    await house.user("ada@example.com")
    house.sessions._passwords = AnyPassword()
    for _ in range(40):
        await house.sign_in("ada@example.com")


@pytest.mark.parametrize(
    ("addresses", "is_one"),
    [
        ([ADDRESS] * 31, True),
        ([f"2001:db8::{number:x}" for number in range(31)], True),
        ([f"192.0.2.{number}" for number in range(31)], False),
    ],
)
async def test_who_tries_many_accounts_from_one_address_waits(house: House, addresses: list[str], is_one: bool) -> None:
    house.sessions._passwords = NoPasswords()
    for number, address in enumerate(addresses[:-1]):
        with pytest.raises(WrongPassword):
            await house.sign_in(f"user-{number}@example.com", address=address)
    with pytest.raises(TooManyAttempts if is_one else WrongPassword):
        await house.sign_in("another@example.com", address=addresses[-1])


class NoPasswords(Passwords):
    async def matches(self, stored: str | None, password: str) -> bool:
        return False


class AnyPassword(Passwords):
    async def matches(self, stored: str | None, password: str) -> bool:
        return True


async def test_whoever_is_suspended_is_told_only_with_the_right_password(house: House) -> None:
    principal, user = await house.user("ada@example.com")
    await house.people.suspend(principal, user)
    with pytest.raises(WrongPassword):
        await house.sign_in("ada@example.com", "wrong password, sorry")
    with pytest.raises(Suspended):
        await house.sign_in("ada@example.com")
    assert sorted(await house.refused()) == [(user, "suspended", 1), (user, "wrong-password", 1)]


async def test_a_new_password_ends_the_sessions_that_the_old_one_began(house: House) -> None:
    principal, user = await house.user("ada@example.com")
    begun = await house.sign_in("ada@example.com")
    again = await house.people.renew_invitation(principal, user)
    authenticator = Authenticator(house.commands, PEPPER, 0)
    assert await authenticator.session(begun.token)
    await house.people.accept(again.token, "another password entirely")
    with pytest.raises(NotAccepted, match="revoked"):
        await authenticator.session(begun.token)
    with pytest.raises(WrongPassword):
        await house.sign_in("ada@example.com")
    assert await house.sign_in("ada@example.com", "another password entirely")


async def test_what_is_over_is_forgotten_and_nothing_else(house: House, database: TestDatabase) -> None:
    principal, user = await house.user("ada@example.com")
    old, new = await house.sign_in("ada@example.com"), await house.sign_in("ada@example.com")
    await house.people.renew_invitation(principal, user)
    with pytest.raises(WrongPassword):
        await house.sign_in("nobody@example.com")
    await house.owner.execute("UPDATE control.sessions SET expires_at = now() WHERE session_id = $1", old.session_id)
    relaying = PostgresDatabase(database.role_url("relay"), pool_size=1)
    relay = Relay(relaying, house.published)
    try:
        await relay.forget_old_keys()
        assert await house.owner.fetchval("SELECT array_agg(session_id) FROM control.sessions") == [new.session_id]
        assert await house.owner.fetchval("SELECT count(*) FROM control.sign_in_attempts") == 2
        await house.owner.execute("UPDATE control.sign_in_attempts SET forget_at = now()")
        await house.owner.execute("UPDATE control.invitations SET expires_at = now()")
        await relay.forget_old_keys()
        for table in ("sign_in_attempts", "invitations"):
            assert await house.owner.fetchval(f"SELECT count(*) FROM control.{table}") == 0
    finally:
        await relaying.close()


async def test_the_apis_roles_cannot_read_what_people_sign_in_with(house: House, database: TestDatabase) -> None:
    principal, _ = await house.user("ada@example.com")
    for role in ("command_api", "query_api"):
        connection = await asyncpg.connect(database.role_url(role))
        try:
            await connection.execute(f"SELECT set_config('parley.tenant', '{principal.tenant_id}', false)")
            for column in ("users.password_hash", "sessions.token_hash", "invitations.token_hash"):
                table = column.partition(".")[0]
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.fetch(f"SELECT {column} FROM control.{table}")
        finally:
            await connection.close()
