"""Browser sessions over HTTP: cookies, CSRF tokens, signing in and out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http.cookies import SimpleCookie

import httpx
import pytest

from backplane.ports.identifiers import new_id
from tests.e2e.client import Client, Json, eventually
from tests.e2e.conftest import Callers
from tests.e2e.running import Up

pytestmark = pytest.mark.timeout(120)

PASSWORD = "correct horse battery staple"


@pytest.fixture
async def browser(parley: Up) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=parley.url, timeout=20, trust_env=False) as client:
        yield client


async def user(admin: Client, role: str = "member") -> str:
    """The e-mail address of a new user of this admin's tenant, who has set the password."""
    email = f"{new_id()}@example.com"
    invited = await admin.http.post("/v1/users", json={"name": f"user {new_id()}", "email": email, "role": role})
    assert invited.status_code == 201, invited.text
    accepted = await admin.http.post(
        "/v1/invitations/accept", json={"token": invited.json()["token"], "password": PASSWORD}
    )
    assert accepted.status_code == 200, accepted.text
    return email


async def signed_in(browser: httpx.AsyncClient, email: str) -> Json:
    """What the browser is told; it sends the CSRF token from now on."""
    answer = await browser.post("/v1/session", json={"email": email, "password": PASSWORD})
    assert answer.status_code == 201, answer.text
    told: Json = answer.json()
    browser.headers["X-CSRF-Token"] = told["csrf_token"]
    return told


async def test_a_user_signs_in_asks_and_signs_out(admin: Client, browser: httpx.AsyncClient) -> None:
    answer = await browser.post("/v1/session", json={"email": await user(admin), "password": PASSWORD})
    cookie = SimpleCookie(answer.headers["set-cookie"])["parley_session"]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"], cookie["secure"]) == (True, "strict", "/", "")
    assert 6 * 24 * 3600 < int(cookie["max-age"]) <= 7 * 24 * 3600
    assert cookie.value not in answer.text
    assert answer.headers["cache-control"] == "no-store"
    me = (await browser.get("/v1/session")).json()
    assert (me["role"], me["session_id"]) == ("member", answer.json()["id"])
    assert me["csrf_token"] == answer.json()["csrf_token"] != cookie.value
    # Reading needs no more than the cookie, writing does.
    assert (await browser.get("/v1/conversations")).status_code == 200
    for wrong in (b"", b"0" * 64, b"\xe9"):
        refused = await browser.post("/v1/prompts", json={"input": "x"}, headers={b"X-CSRF-Token": wrong})
        assert (refused.status_code, refused.json()["type"]) == (403, "urn:parley:problem:csrf")
    csrf = {"X-CSRF-Token": me["csrf_token"]}
    assert (await browser.post("/v1/prompts", json={"input": "x"}, headers=csrf)).status_code == 202
    assert (await browser.delete("/v1/session", headers=csrf)).status_code == 204
    assert "parley_session" not in browser.cookies
    kept = {"Cookie": f"parley_session={cookie.value}"}
    await eventually(
        lambda: browser.get("/v1/session", headers=kept), lambda answer: answer.status_code == 401, within=2
    )
    begun, ended = await eventually(
        lambda: admin.events(subject=f"session:{me['session_id']}"), lambda told: len(told) == 2
    )
    assert (begun["type"], begun["data"]["method"], begun["actor"]) == (
        "session.begun.v1",
        "password",
        f"user:{me['user_id']}",
    )
    assert ended["type"] == "session.ended.v1"


async def test_over_tls_the_cookie_is_one_that_nobody_else_can_set(admin: Client, browser: httpx.AsyncClient) -> None:
    email = await user(admin)
    browser.headers["X-Forwarded-Proto"] = "https"  # as a proxy on this machine says
    answer = await browser.post("/v1/session", json={"email": email, "password": PASSWORD})
    cookie = SimpleCookie(answer.headers["set-cookie"])["__Host-parley_session"]
    assert (cookie["secure"], cookie["httponly"], cookie["path"], cookie["domain"]) == (True, True, "/", "")
    for name, status in (("__Host-parley_session", 200), ("parley_session", 401)):
        sent = {"Cookie": f"{name}={cookie.value}"}
        assert (await browser.get("/v1/session", headers=sent)).status_code == status


async def test_wrong_passwords_are_told_counted_and_put_on_record(admin: Client, browser: httpx.AsyncClient) -> None:
    email = await user(admin)
    statuses: list[int] = []
    while 429 not in statuses:
        answer = await browser.post("/v1/session", json={"email": email, "password": "wrong " + PASSWORD})
        assert answer.json()["type"].rpartition(":")[2] in ("wrong-password", "too-many-attempts")
        assert PASSWORD not in answer.text
        assert email not in answer.text
        statuses.append(answer.status_code)
    # Where the machine is slow, the first waits pass by themselves.
    assert statuses == [401] * (len(statuses) - 1) + [429]
    assert 5 < len(statuses) < 12
    assert int(answer.headers["retry-after"]) >= 1
    told = await eventually(
        lambda: admin.events(type="sign_in.refused.v1"),
        lambda told: {"wrong-password", "too-many-attempts"} <= {one["data"]["reason"] for one in told},
    )
    assert {one["actor"] for one in told} == {"nobody"}
    assert sum(one["data"]["count"] for one in told if one["data"]["reason"] == "wrong-password") == len(statuses) - 1
    assert email not in str(await admin.events())


async def test_somebody_ends_their_other_session_and_sees_nobody_elses(
    admin: Client, browser: httpx.AsyncClient, parley: Up
) -> None:
    ada, bob = await user(admin), await user(admin)
    first = await signed_in(browser, ada)
    async with httpx.AsyncClient(base_url=parley.url, timeout=20, trust_env=False) as other:
        second = await signed_in(other, ada)
        listed = (await browser.get("/v1/sessions")).json()["sessions"]
        assert [(one["id"], one["current"], one["method"]) for one in listed] == [
            (second["id"], False, "password"),
            (first["id"], True, "password"),
        ]
        assert (await browser.delete(f"/v1/sessions/{second['id']}")).status_code == 204
        await eventually(lambda: other.get("/v1/session"), lambda answer: answer.status_code == 401, within=2)
        bobs = await signed_in(other, bob)
        assert [one["id"] for one in (await other.get("/v1/sessions")).json()["sessions"]] == [bobs["id"]]
        assert (await other.delete(f"/v1/sessions/{first['id']}")).status_code == 404
    assert (await browser.get("/v1/session")).status_code == 200


async def test_a_key_is_exchanged_for_a_session_that_may_what_it_may_and_ends_with_it(
    admin: Client, callers: Callers, browser: httpx.AsyncClient
) -> None:
    issued = (await admin.http.post("/v1/api-keys", json={"models": ["nobody-asks"], "role": "member"})).json()
    bearer = {"Authorization": f"Bearer {issued['key']}"}
    answer = await browser.post("/v1/session/from-key", headers=bearer)
    assert answer.status_code == 201
    me = (await browser.get("/v1/session")).json()
    assert (me["session_id"], me["models"], me["role"]) == (answer.json()["id"], ["nobody-asks"], "member")
    csrf = {"X-CSRF-Token": me["csrf_token"]}
    refused = await browser.post("/v1/prompts", json={"input": "x", "model": "script"}, headers=csrf)
    assert (refused.status_code, refused.json()["type"]) == (403, "urn:parley:problem:model-not-allowed")
    # A session begins no other, and a key goes before a cookie.
    assert (await browser.post("/v1/session/from-key", headers=csrf)).status_code == 409
    assert (await browser.get("/v1/session", headers=bearer)).json()["session_id"] is None
    assert (await admin.http.delete(f"/v1/api-keys/{issued['id']}")).status_code == 204
    await eventually(lambda: browser.get("/v1/session"), lambda answer: answer.status_code == 401, within=2)


async def test_a_role_may_in_a_browser_what_it_may_elsewhere(admin: Client, browser: httpx.AsyncClient) -> None:
    await signed_in(browser, await user(admin, "auditor"))
    assert (await browser.get("/v1/events")).status_code == 200
    for path in ("/v1/conversations", "/v1/usage", "/v1/users", "/v1/api-keys", "/v1/tenants"):
        assert (await browser.get(path)).status_code == 403, path
    answer = await browser.post("/v1/prompts", json={"input": "x"})
    assert (answer.status_code, answer.json()["type"]) == (403, "urn:parley:problem:forbidden")
    assert answer.json()["permission"] == "conversations.use"
