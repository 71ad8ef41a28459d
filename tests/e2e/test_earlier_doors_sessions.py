"""Clients of the chat service with accounts, as its own client and its tests ask."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from backplane.ports.identifiers import new_id
from tests.e2e.client import Client, Json, eventually
from tests.e2e.conftest import Callers
from tests.e2e.running import Up

pytestmark = pytest.mark.timeout(180)

PASSWORD = "correct horse battery staple"


def scripted(**script: Any) -> str:
    return f"Hello. script: {json.dumps(script)}"


def openai(text: str, **more: Any) -> Json:
    """As its tests ask."""
    return {"model": "gpt-4", "message": {"role": "user", "content": text}, "stream": True} | more


def anthropic(text: str, **more: Any) -> Json:
    """As its web client asks."""
    messages = [{"role": "user", "content": text}]
    return {"max_tokens": 100, "messages": messages, "model": "gpt-4", "stream": True} | more


class Account:
    """A user who signed up, and signed in for a token."""

    def __init__(self, http: httpx.AsyncClient, email: str) -> None:
        self.http = http
        self.email = email

    async def session(self) -> str:
        begun = await self.http.post("/v1/gpt/sessions")
        assert begun.status_code == 201, begun.text
        session_id: str = begun.json()["session_id"]
        assert begun.headers["location"].split("/")[-1] == session_id
        return session_id

    async def say(self, session_id: str, body: Json, gpt_type: str = "openai") -> httpx.Response:
        path = f"/v1/gpt/sessions/{session_id}/messages?gpt_type={gpt_type}"
        return await self.http.post(path, json=body)

    async def said(self, session_id: str) -> list[tuple[str, str]]:
        found = (await self.http.get(f"/v1/gpt/sessions/{session_id}")).json()
        return [(one["role"], one["content"]) for one in found["messages"]]


async def signed_up(http: httpx.AsyncClient, admin: Client, email: str, name: str = "") -> Json:
    made = await http.post(
        "/v1/auth/signup",
        json={"user_name": name, "email": email, "password": PASSWORD},
        headers={"Authorization": f"Bearer {admin.key}"},
    )
    assert made.status_code == 200, made.text
    user: Json = made.json()
    return user


async def logged_in(http: httpx.AsyncClient, email: str, password: str = PASSWORD) -> httpx.Response:
    return await http.post("/v1/auth/login", data={"username": email, "password": password, "grant_type": "password"})


@pytest.fixture
async def nobody(parley: Up) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=parley.url, timeout=30, trust_env=False) as http:
        yield http


@pytest.fixture
async def account(nobody: httpx.AsyncClient, admin: Client) -> Account:
    email = f"ada-{new_id()}@example.com"
    await signed_up(nobody, admin, email)
    token = await logged_in(nobody, email)
    assert token.status_code == 200, token.text
    nobody.headers["Authorization"] = f"Bearer {token.json()['access_token']}"
    return Account(nobody, email)


async def test_who_signs_up_signs_in_and_is_told_who_they_are(
    nobody: httpx.AsyncClient, admin: Client, callers: Callers
) -> None:
    email = f"ada-{new_id()}@example.com"
    user = await signed_up(nobody, admin, email)
    assert user == {"user_id": user["user_id"], "user_name": email, "email": email}
    token = await logged_in(nobody, email)
    assert token.json() == {"access_token": token.json()["access_token"], "token_type": "bearer"}
    assert token.headers["cache-control"] == "no-store"
    bearer = {"Authorization": f"Bearer {token.json()['access_token']}"}
    for method in ("GET", "POST"):
        assert (await nobody.request(method, "/v1/auth/me", headers=bearer)).json() == user
    # It is this door's alone: Parley's own API takes sessions with their CSRF token.
    assert (await nobody.get("/v1/conversations", headers=bearer)).status_code == 401
    with_key = await admin.http.get("/v1/auth/me")
    assert (with_key.status_code, with_key.json()["email"]) == (200, "")
    again = await admin.http.post("/v1/auth/signup", json={"email": email, "password": PASSWORD})
    assert (again.status_code, again.json()) == (409, {"detail": "This name or address has an account already"})
    assert (await admin.http.post(f"/v1/users/{user['user_id']}/suspend")).is_success

    async def refused() -> int:
        return (await nobody.get("/v1/auth/me", headers=bearer)).status_code

    await eventually(refused, lambda status: status == 401)
    assert PASSWORD not in json.dumps(await admin.events())


async def test_an_address_is_in_no_event_however_long_it_is_and_whatever_the_name(
    nobody: httpx.AsyncClient, admin: Client
) -> None:
    short = f"ada-{new_id()}@example.com"
    long = f"{'a' * (254 - len(short))}{short}"
    named = f"bob-{new_id()}@example.com"
    told = [
        await signed_up(nobody, admin, short),
        await signed_up(nobody, admin, long),
        await signed_up(nobody, admin, named, named.upper()),
    ]
    assert [one["user_name"] for one in told] == [short, long, named]

    async def names() -> list[str]:
        return [one["data"]["name"] for one in await admin.events(type="user.invited.v2")]

    assert await eventually(names, lambda found: len(found) == 3) == [one["user_id"] for one in told]
    assert "@example.com" not in json.dumps(await admin.events()).lower()


async def test_a_wrong_password_is_one_answer_for_all(nobody: httpx.AsyncClient, admin: Client) -> None:
    email = f"ada-{new_id()}@example.com"
    await signed_up(nobody, admin, email)
    wrong = await logged_in(nobody, email, "another horse")
    unknown = await logged_in(nobody, f"bob-{new_id()}@example.com")
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.json() == unknown.json()
    assert isinstance(wrong.json()["detail"], str)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"email": "ada", "password": PASSWORD}, "email"),
        ({"email": "ada@example.com", "password": "short"}, "password"),
        ({"email": "ada@example.com"}, "password"),
    ],
)
async def test_what_nobody_signs_up_with_is_named(admin: Client, body: Json, field: str) -> None:
    refused = await admin.http.post("/v1/auth/signup", json=body)
    assert refused.status_code == 422
    assert refused.json()["detail"][0]["loc"] == ["body", field]


async def test_nobody_signs_up_without_somebody_who_may_invite(nobody: httpx.AsyncClient, callers: Callers) -> None:
    body = {"email": f"ada-{new_id()}@example.com", "password": PASSWORD}
    assert (await nobody.post("/v1/auth/signup", json=body)).status_code == 401
    member = await callers.caller(await callers.tenant(), "member", "bob")
    assert (await member.http.post("/v1/auth/signup", json=body)).status_code == 403


async def test_a_session_is_made_first_and_written_in_later(account: Account) -> None:
    session_id = await account.session()
    shown = (await account.http.get(f"/v1/gpt/sessions/{session_id}")).json()
    me = (await account.http.get("/v1/auth/me")).json()
    assert shown == {
        "session_id": session_id,
        "session_name": "New Session",
        "user_id": me["user_id"],
        "messages": [],
    }
    first = scripted(tokens=["a ", "b"])
    answer = await account.say(session_id, openai(first))
    assert (answer.status_code, answer.text) == (200, "a b")
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["parley-conversation-id"] == session_id
    second = scripted(tokens=["c"])
    assert (await account.say(session_id, anthropic(second, system="Be brief."), "anthropic")).text == "c"
    # A client that sends all that was said sends nothing twice.
    whole = [{"role": "assistant", "content": "c"}, {"role": "user", "content": scripted(tokens=["d"])}]
    assert (await account.say(session_id, {"model": "gpt-4", "messages": whole})).text == "d"

    async def said() -> list[tuple[str, str]]:
        return await account.said(session_id)

    found = await eventually(
        said, lambda found: [text for role, text in found if role == "assistant"] == ["a b", "c", "d"]
    )
    assert [text for role, text in found if role == "user"] == [first, second, scripted(tokens=["d"])]
    messages = (await account.http.get(f"/v1/gpt/sessions/{session_id}/messages")).json()
    assert [(one["role"], one["content"]) for one in messages] == found


async def test_sessions_are_listed_renamed_and_deleted(account: Account, admin: Client, callers: Callers) -> None:
    first, second = await account.session(), await account.session()
    assert (await account.http.put(f"/v1/gpt/sessions/{first}", json={"name": "Mine"})).status_code == 200
    listed = (await account.http.get("/v1/gpt/sessions")).json()
    assert listed == [
        {"session_id": first, "session_name": "Mine"},
        {"session_id": second, "session_name": "New Session"},
    ]
    stranger = await callers.admin()
    for path in (f"/v1/gpt/sessions/{first}", f"/v1/gpt/sessions/{first}/messages"):
        assert (await stranger.http.get(path)).json() == {"detail": "There is no such conversation."}
    assert (await stranger.http.delete(f"/v1/gpt/sessions/{first}")).status_code == 404
    assert (await account.http.delete(f"/v1/gpt/sessions/{first}")).status_code == 204
    await eventually(
        lambda: account.http.get(f"/v1/gpt/sessions/{first}"), lambda response: response.status_code == 404
    )
    assert [one["session_id"] for one in (await account.http.get("/v1/gpt/sessions")).json()] == [second]


async def test_an_answer_streams_and_who_goes_away_stops_it(account: Account, admin: Client) -> None:
    session_id = await account.session()
    path = f"/v1/gpt/sessions/{session_id}/messages?gpt_type=openai"
    endless = openai(scripted(count=100_000, delay_s=0.02))
    async with account.http.stream("POST", path, json=endless) as answer:
        generation_id = answer.headers["parley-generation-id"]
        assert await anext(answer.aiter_text())
    assert (await admin.ended(generation_id))["status"] == "cancelled"


async def test_what_fails_before_the_first_word_has_a_status_and_after_it_a_line(account: Account) -> None:
    session_id = await account.session()
    early = await account.say(session_id, openai(scripted(fail_after=0, fail_kind="refused")))
    assert early.status_code == 500
    assert "breaks off" in early.json()["detail"]
    late = await account.say(await account.session(), openai(scripted(fail_after=2, fail_kind="refused")))
    assert late.status_code == 200
    assert "breaks off" in late.text.rpartition("\nError: ")[2]


@pytest.mark.parametrize(
    ("body", "gpt_type", "loc"),
    [
        (openai("Hi", model="script"), "openai", ["query", "gpt_type"]),
        (anthropic("Hi", model="claude-3-5-sonnet-20240620"), "anthropic", ["query", "gpt_type"]),
        (openai("Hi"), "gemini", ["query", "gpt_type"]),
        ({"model": "gpt-4", "messages": []}, "openai", ["body", "messages"]),
        ({"model": "gpt-4", "messages": [{"role": "user", "content": "Hi"}]}, "anthropic", ["body", "max_tokens"]),
        (openai("Hi", tools=[{"type": "function", "function": {"name": "f"}}]), "openai", ["body", "tools"]),
        (openai("Hi", n=2), "openai", ["body", "n"]),
    ],
)
async def test_what_cannot_be_asked_is_named(account: Account, body: Json, gpt_type: str, loc: list[str]) -> None:
    refused = await account.say(await account.session(), body, gpt_type)
    assert refused.status_code == 422, refused.text
    assert refused.json()["detail"][0]["loc"] == loc


async def test_what_is_said_in_no_session_is_a_404(account: Account) -> None:
    refused = await account.say(str(uuid4()), openai("Hi"))
    assert (refused.status_code, refused.json()) == (404, {"detail": "There is no such conversation."})


async def test_providers_keys_have_names_and_are_shown_to_nobody(account: Account, admin: Client) -> None:
    http, secret = admin.http, f"sk-{new_id()}"
    body = {"api_key": secret, "api_type": "openai", "key_name": "mine"}
    added = await http.post("/v1/auth/apikeys", json=body)
    assert (added.status_code, added.content) == (201, b"")
    assert (await http.post("/v1/auth/apikeys", json=body)).status_code == 409
    listed = await http.get("/v1/auth/apikeys")
    (shown,) = listed.json()
    assert (shown["key_name"], shown["key_type"]) == ("mine", "openai")
    assert secret not in listed.text
    assert (await http.get("/v1/auth/apikeys", params={"api_type": "anthropic"})).json() == []
    # The very key of Parley's own API; other servers that speak like OpenAI's get it from nobody but there.
    (native,) = (await admin.get("/v1/provider-keys"))["provider_keys"]
    assert (native["name"], native["fingerprint"], native["pool"]) == ("mine", shown["key"], "openai")
    nowhere = await http.post("/v1/auth/apikeys", json=body | {"api_type": "anthropic"})
    assert nowhere.json()["detail"][0]["loc"] == ["body", "api_type"]
    assert (await account.http.post("/v1/auth/apikeys", json=body)).status_code == 403, "the whole tenant would use it"
    assert (await http.delete("/v1/auth/apikeys/mine")).status_code == 200
    assert (await http.delete("/v1/auth/apikeys/mine")).status_code == 404
    assert (await http.get("/v1/auth/apikeys")).json() == []


async def test_whose_address_a_stranger_signs_up_with_signs_in_as_before(short_folder: Path) -> None:
    up, email, strangers = Up(short_folder / "joined"), "ada@example.com", "a stranger's own password"
    try:
        up.start()
        up.ready()
        assert up.stop() == 0
        up.environment["PARLEY_DOORS__ADMIN_KEY"] = up.admin_key
        up.start()
        up.ready()
        async with (
            AsyncExitStack() as open_clients,
            httpx.AsyncClient(base_url=up.url, timeout=30, trust_env=False) as nobody,
        ):
            admin = await Callers(up, open_clients).admin()
            invited = (await admin.http.post("/v1/users", json={"name": "Ada", "email": email})).json()
            accepted = {"token": invited["token"], "password": PASSWORD}
            assert (await nobody.post("/v1/invitations/accept", json=accepted)).is_success
            joined = await nobody.post("/v1/auth/signup", json={"email": email, "password": strangers})
            assert joined.status_code == 200, joined.text
            begun = await nobody.post("/v1/session", json={"email": email, "password": PASSWORD})
            assert begun.status_code == 201, begun.text
            assert (await nobody.get("/v1/session")).json()["user_id"] == invited["user_id"]
            nobody.cookies.clear()
            token = (await logged_in(nobody, email, strangers)).json()["access_token"]
            bearer = {"Authorization": f"Bearer {token}"}
            assert (await nobody.get("/v1/auth/me", headers=bearer)).json() == joined.json()
            # Only users of the tenant that people join here sign in here.
            assert (await logged_in(nobody, email)).status_code == 401
        assert up.stop() == 0
    finally:
        up.end()
