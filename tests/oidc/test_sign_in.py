"""Signing in with OpenID Connect, over real HTTP on both sides: who is let in, and every way a provider can lie."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

import asyncpg
import httpx
import pytest

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.ports.identifiers import new_id
from backplane.security.authenticator import Authenticator
from backplane.security.password import Passwords
from backplane.security.principal import Principal
from backplane.security.sealing import MasterKey
from backplane.settings import OidcSettings, Settings
from backplane.telemetry.readiness import Readiness
from backplane.web.application import make_application
from command_api import oidc_routes, tenancy
from command_api.oidc_sign_in import OidcSignIn
from command_api.people import People
from command_api.refusals import Refusals
from command_api.sessions import Sessions
from tests.conftest import TestDatabase
from tests.integration.publications import Publications
from tests.integration.test_sign_in import PEPPER, Silence
from tests.oidc.provider import CLIENT_ID, CLIENT_SECRET, Provider, running, served

BACK = "/v1/oidc/company/callback"


@dataclass
class House:
    browser: httpx.AsyncClient
    provider: Provider
    people: People
    owner: Principal
    rows: asyncpg.Connection
    authenticator: Authenticator

    async def back(self, browser: httpx.AsyncClient | None = None) -> httpx.URL:
        """From the link to the provider, up to where it sends the browser back."""
        browser = browser or self.browser
        there = await browser.get("/v1/oidc/company/sign-in")
        assert there.status_code == 303, there.text
        answer = await browser.get(there.headers["location"])
        assert answer.status_code == 302
        return httpx.URL(answer.headers["location"])

    async def sign_in(self) -> httpx.Response:
        return await self.browser.get(await self.back())

    async def who(self) -> Principal:
        """Whom the browser's cookie stands for."""
        return await self.authenticator.session(self.browser.cookies["parley_session"])

    async def users(self) -> list[tuple[str, str, str | None]]:
        rows = await self.rows.fetch("SELECT name, role, email FROM control.users ORDER BY created_at")
        return [tuple(row) for row in rows]


@pytest.fixture
async def house(database: TestDatabase) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(running())
        commands = PostgresDatabase(database.role_url("command_api"), pool_size=4)
        stack.push_async_callback(commands.close)
        rows = await asyncpg.connect(database.owner_url)
        stack.push_async_callback(rows.close)
        tenant = await tenancy.provision_tenant(commands, "acme")
        settings = OidcSettings.model_validate(
            {
                "issuer": provider.url,
                "client_id": CLIENT_ID,
                "client_secret": CLIENT_SECRET,
                "tenant": tenant,
                "domains": ["Example.com"],
            }
        )
        passwords = Passwords()
        sessions = Sessions(commands, Silence(), PEPPER, passwords, Refusals(Publications(), 60), 1)
        oidc = OidcSignIn(commands, sessions, MasterKey("0" * 64), {"company": settings})
        authenticator = Authenticator(commands, PEPPER, 0)
        app = make_application("Parley", Settings(), authenticator, Readiness(), [oidc_routes.router])
        relay = SimpleNamespace(wake=lambda: None)
        app.state.command = SimpleNamespace(people=SimpleNamespace(oidc=oidc, relay=relay))
        listening = socket.create_server(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        await stack.enter_async_context(served(app, listening))
        browser = httpx.AsyncClient(base_url=url, timeout=20, trust_env=False)
        await stack.enter_async_context(browser)
        people = People(commands, Silence(), PEPPER, passwords, 1)
        yield House(browser, provider, people, Principal(tenant, new_id(), None, "owner"), rows, authenticator)


def failed(answer: httpx.Response, status: int, kind: str, says: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.json()["type"] == f"urn:parley:problem:{kind}"
    assert says in answer.json()["detail"]
    assert "parley_session" not in answer.headers.get("set-cookie", "")
    assert CLIENT_SECRET not in answer.text


async def test_who_is_of_the_domain_is_made_a_user_once(house: House) -> None:
    assert (await house.browser.get("/v1/oidc")).json() == {"providers": ["company"]}
    answer = await house.sign_in()
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    (cookie,) = [one for one in answer.headers.get_list("set-cookie") if one.startswith("parley_session=")]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    first = await house.who()
    assert (first.tenant_id, first.role) == (house.owner.tenant_id, "member")
    house.provider.email = "ada.lovelace@example.com"  # the subject is what counts
    assert (await house.sign_in()).status_code == 303
    assert (await house.who()).user_id == first.user_id
    house.provider.subject, house.provider.email = "subject-2", "other@example.com"  # another Ada
    assert (await house.sign_in()).status_code == 303
    assert (await house.who()).user_id != first.user_id
    (name, role, email), (other, _, _) = await house.users()
    assert (name, role, email) == ("Ada", "member", "ada@example.com")
    assert other.startswith("Ada ")
    outbox = str([bytes(row["envelope"]) for row in await house.rows.fetch("SELECT envelope FROM control.outbox")])
    assert "session.begun.v1" in outbox
    assert "@" not in outbox


async def test_an_address_that_is_given_for_a_name_is_in_no_event(house: House) -> None:
    house.provider.name = "ada@example.com"
    assert (await house.sign_in()).status_code == 303
    assert await house.users() == [(str((await house.who()).user_id), "member", "ada@example.com")]
    assert "@" not in str(
        [bytes(row["envelope"]) for row in await house.rows.fetch("SELECT envelope FROM control.outbox")]
    )


async def test_who_was_invited_comes_in_by_a_verified_address_and_nobody_else(house: House) -> None:
    house.provider.email = "bob@elsewhere.example"
    failed(await house.sign_in(), 403, "not-invited", "invitation")
    invited = await house.people.invite(house.owner, "bob", "Bob@elsewhere.example", "admin")
    house.provider.email_verified = False
    failed(await house.sign_in(), 403, "not-invited", "invitation")
    house.provider.email_verified = True
    assert (await house.sign_in()).status_code == 303
    who = await house.who()
    assert (who.user_id, who.role) == (invited.user_id, "admin")
    await house.people.suspend(house.owner, invited.user_id)
    failed(await house.sign_in(), 401, "suspended", "suspended")
    await house.people.remove(house.owner, invited.user_id)
    failed(await house.sign_in(), 403, "not-invited", "invitation")


async def test_an_unverified_address_of_the_domain_opens_nothing(house: House) -> None:
    house.provider.email_verified = False
    failed(await house.sign_in(), 403, "not-invited", "invitation")
    house.provider.email, house.provider.email_verified = "ada@notexample.com", True
    failed(await house.sign_in(), 403, "not-invited", "invitation")


LONG_AGO = 1_000_000_000


@pytest.mark.parametrize(
    ("claims", "forged"),
    [
        ({"nonce": "another"}, None),
        ({"nonce": None}, None),
        ({"exp": LONG_AGO}, None),
        ({"exp": None}, None),
        ({"iat": 4_000_000_000}, None),
        ({"aud": "another client"}, None),
        ({"aud": ["another client"]}, None),
        ({"aud": [CLIENT_ID, "another client"]}, None),
        ({"aud": None}, None),
        ({"azp": "another client"}, None),
        ({"iss": "https://evil.example.com"}, None),
        ({"iss": None}, None),
        ({"sub": None}, None),
        ({"sub": ""}, None),
        ({"sub": 7}, None),
        ({}, "none"),
        ({}, "hs256"),
        ({}, "other key"),
        ({}, "unknown key"),
        ({}, "changed"),
        ({}, "no token"),
    ],
)
async def test_a_token_that_is_not_to_be_believed_lets_nobody_in(
    house: House, claims: dict[str, Any], forged: str | None
) -> None:
    house.provider.claims, house.provider.forged = claims, forged
    failed(await house.sign_in(), 401, "oidc-failed", "id_token")
    assert await house.users() == []


async def test_a_code_is_for_the_browser_that_began_and_for_once(house: House) -> None:
    back = await house.back()
    async with httpx.AsyncClient(base_url=house.browser.base_url, trust_env=False) as victim:
        # Somebody is led to come back with another's code: signed in as them, they would write into their account.
        failed(await victim.get(back), 401, "oidc-failed", "began no attempt")
        await house.back(victim)
        failed(await victim.get(back), 401, "oidc-failed", "another attempt")
    assert (await house.browser.get(back)).status_code == 303
    failed(await house.browser.get(back), 401, "oidc-failed", "began no attempt")
    again = dict(parse_qsl(urlsplit(str(await house.back())).query))
    used = await house.browser.get(BACK, params={"state": again["state"], "code": "no-such-code"})
    failed(used, 401, "oidc-failed", "invalid_grant")


async def test_a_provider_that_refuses_or_is_away_or_is_another_is_told(house: House) -> None:
    answer = await house.browser.get(BACK, params={"error": "access_denied", "state": "x"})
    failed(answer, 401, "oidc-failed", "let nobody in")
    house.provider.is_silent = True
    failed(await house.browser.get("/v1/oidc/company/sign-in"), 401, "oidc-failed", "does not answer")
    house.provider.is_silent, house.provider.issuer = False, "https://evil.example.com"
    failed(await house.browser.get("/v1/oidc/company/sign-in"), 401, "oidc-failed", "another issuer")
    for path in ("/v1/oidc/nobody/sign-in", "/v1/oidc/nobody/callback?code=x&state=y"):
        failed(await house.browser.get(path), 404, "not-found", "provider")


@pytest.mark.parametrize("issuer", ["http://login.example.com", "ftp://login.example.com", "login.example.com"])
def test_an_issuer_that_is_not_safe_is_refused(issuer: str) -> None:
    with pytest.raises(ValueError, match="use https"):
        OidcSettings.model_validate({"issuer": issuer, "client_id": "a", "client_secret": "b", "tenant": UUID(int=7)})
