"""From the platform's admin to a tenant, its users and their keys, over HTTP; and that what ends, ends at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from backplane.ports.identifiers import new_id
from tests.e2e.client import Client, Json, eventually
from tests.e2e.conftest import Callers
from tests.e2e.running import Up

pytestmark = pytest.mark.timeout(120)

PASSWORD = "correct horse battery staple"


async def sent(client: Client, method: str, path: str, status: int, body: Json | None = None) -> Json:
    response = await client.http.request(method, path, json=body)
    assert response.status_code == status, response.text
    told: Json = response.json() if response.content else {}
    return told


async def issued(callers: Callers, client: Client, **body: object) -> tuple[str, Client]:
    key = await sent(client, "POST", "/v1/api-keys", 201, body)
    return key["id"], await callers.with_key(key["key"])


async def invited(client: Client, role: str = "member") -> Json:
    name = f"user-{new_id()}"
    body = {"name": name, "email": f"{name}@example.com", "role": role}
    return body | await sent(client, "POST", "/v1/users", 201, body)


async def refused(client: Client) -> httpx.Response:
    """What a caller is told who stood for somebody a moment ago."""
    return await eventually(lambda: client.http.get("/v1/session"), lambda answer: answer.status_code == 401, within=2)


@pytest.fixture
async def platform(parley: Up, callers: Callers) -> Client:
    key = parley.parley("key", "issue", "--tenant", "platform", "--role", "platform")
    return await callers.with_key(key.strip())


@pytest.fixture
async def owner(platform: Client, callers: Callers) -> Client:
    tenant = await sent(platform, "POST", "/v1/tenants", 201, {"name": f"t {new_id()}"})
    key = await sent(platform, "POST", f"/v1/tenants/{tenant['id']}/owner-key", 201)
    return await callers.with_key(key["key"])


async def test_a_platform_admin_makes_tenants_and_lets_their_owners_in(platform: Client, callers: Callers) -> None:
    name = f"acme {new_id()}"
    tenant = await sent(platform, "POST", "/v1/tenants", 201, {"name": name})
    await sent(platform, "POST", "/v1/tenants", 409, {"name": name})
    path = f"/v1/tenants/{tenant['id']}"
    key = await sent(platform, "POST", f"{path}/owner-key", 201)
    await sent(platform, "POST", f"{path}/owner-key", 409)
    owner = await callers.with_key(key["key"])
    me = await owner.get("/v1/session")
    assert (me["tenant_id"], me["role"], me["user_id"]) == (tenant["id"], "owner", None)
    assert await sent(platform, "PATCH", f"{path}/share", 200, {"weight": 5}) == {"weight": 5, "priority": "normal"}
    (listed,) = [one for one in (await platform.get("/v1/tenants"))["tenants"] if one["id"] == tenant["id"]]
    assert (listed["name"], listed["weight"], listed["suspended_at"]) == (name, 5, None)
    # It runs the platform, and reads and writes nothing of what tenants do.
    assert (await platform.post_prompt("x")).status_code == 403
    assert (await platform.http.get("/v1/conversations")).status_code == 403
    await sent(platform, "POST", f"/v1/tenants/{new_id()}/suspend", 404)
    await sent(platform, "POST", "/v1/tenants/00000000-0000-0000-0000-000000000000/suspend", 404)


async def test_a_suspended_tenants_keys_stop_at_once_and_work_again_once_it_is_resumed(
    platform: Client, owner: Client, parley: Up
) -> None:
    tenant = (await owner.get("/v1/session"))["tenant_id"]
    await sent(platform, "POST", f"/v1/tenants/{tenant}/suspend", 204)
    assert "suspended" in (await refused(owner)).json()["detail"]
    await sent(platform, "POST", f"/v1/tenants/{tenant}/resume", 204)
    assert (await owner.get("/v1/session"))["tenant_id"] == tenant
    # The same at the command line.
    parley.parley("tenant", "suspend", tenant)
    await refused(owner)
    parley.parley("tenant", "resume", tenant)
    told = await eventually(lambda: owner.events(type="tenant.resumed.v1"), lambda found: len(found) == 2)
    assert [one["actor"].partition(":")[0] for one in told] == ["key", "operator"]


async def test_only_an_owner_makes_changes_and_removes_owners(owner: Client, callers: Callers) -> None:
    _, admin = await issued(callers, owner, role="admin")
    first, second = await invited(owner, "owner"), await invited(admin, "member")
    await sent(admin, "POST", "/v1/users", 403, {"name": "x", "email": "x@example.com", "role": "owner"})
    await sent(admin, "POST", "/v1/api-keys", 403, {"role": "owner"})
    for method, path, body in (
        ("PATCH", f"/v1/users/{second['user_id']}", {"role": "owner"}),
        ("PATCH", f"/v1/users/{first['user_id']}", {"role": "member"}),
        ("POST", f"/v1/users/{first['user_id']}/suspend", None),
        ("POST", f"/v1/users/{first['user_id']}/invitation", None),
        ("DELETE", f"/v1/users/{first['user_id']}", None),
    ):
        assert (await sent(admin, method, path, 403, body))["type"] == "urn:parley:problem:beyond-own", (method, path)
    keys = (await admin.get("/v1/api-keys"))["api_keys"]
    (owners,) = [key["id"] for key in keys if key["role"] == "owner"]
    await sent(admin, "DELETE", f"/v1/api-keys/{owners}", 403)
    await sent(admin, "POST", f"/v1/api-keys/{owners}/rotate", 403, {})
    await sent(owner, "PATCH", f"/v1/users/{second['user_id']}", 204, {"role": "owner"})
    await sent(owner, "DELETE", f"/v1/users/{first['user_id']}", 204)
    assert [(one["id"], one["role"]) for one in (await owner.get("/v1/users"))["users"]] == [
        (second["user_id"], "owner")
    ]
    await sent(owner, "POST", "/v1/users", 422, {"name": "x", "email": "x@example.com", "role": "emperor"})
    await sent(owner, "POST", "/v1/users", 403, {"name": "x", "email": "x@example.com", "role": "platform"})


async def test_nobody_issues_a_key_with_more_than_they_have(owner: Client, callers: Callers) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    _, limited = await issued(
        callers, owner, role="admin", models=["script"], personas=["clerk"], expires_at=soon.isoformat()
    )
    same = {"models": ["script"], "personas": ["clerk"], "expires_at": soon.isoformat()}
    for more in (
        {"models": None},
        {"models": ["script", "nobody-asks"]},
        {"personas": None},
        {"personas": ["boss"]},
        {"expires_at": None},
        {"expires_at": (soon + timedelta(seconds=1)).isoformat()},
        {"role": "owner"},
    ):
        told = await sent(limited, "POST", "/v1/api-keys", 403, same | more)
        assert told["type"] == "urn:parley:problem:beyond-own", more
    await sent(limited, "POST", "/v1/api-keys", 201, same)
    # A user that it invited would have no such limits.
    await sent(limited, "POST", "/v1/users", 403, {"name": "x", "email": "x@example.com"})
    for wrong, field in (
        ({"models": ["gpt-17"]}, "body.models"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "body.expires_at"),
        ({"scopes": ["everything"]}, "body.scopes"),
    ):
        assert (await sent(owner, "POST", "/v1/api-keys", 422, wrong))["errors"][0]["field"] == field
    await sent(owner, "POST", "/v1/api-keys", 404, {"user_id": str(new_id())})


async def test_a_key_asks_the_models_that_it_may(owner: Client, callers: Callers) -> None:
    key_id, limited = await issued(callers, owner, models=["nobody-asks"])
    told = await limited.post_prompt("x", model="script")
    assert (told.status_code, told.json()["type"]) == (403, "urn:parley:problem:model-not-allowed")
    assert "script" in told.json()["detail"]
    assert (await limited.post_prompt("x")).status_code == 403  # the default is none of its models
    assert (await limited.post_prompt("x", model="nobody-asks")).status_code == 202
    (issue,) = await eventually(lambda: owner.events(type="key.issued.v2", subject=f"key:{key_id}"), bool)
    assert (issue["data"]["models"], issue["data"]["personas"]) == (["nobody-asks"], None)


async def test_a_member_manages_its_own_keys_and_sees_no_others(owner: Client, callers: Callers) -> None:
    ada, bob = (await invited(owner))["user_id"], (await invited(owner))["user_id"]
    first_id, first = await issued(callers, owner, user_id=ada)
    bobs_id, _ = await issued(callers, owner, user_id=bob)
    second_id, second = await issued(callers, first, user_id=ada)
    for body in ({"user_id": bob}, {}, {"user_id": ada, "role": "admin"}):
        await sent(first, "POST", "/v1/api-keys", 403, body)
    assert {one["id"] for one in (await first.get("/v1/api-keys"))["api_keys"]} == {first_id, second_id}
    await sent(first, "DELETE", f"/v1/api-keys/{bobs_id}", 404)
    await sent(first, "DELETE", f"/v1/api-keys/{second_id}", 204)
    assert "revoked" in (await refused(second)).json()["detail"]
    told = await sent(owner, "POST", "/v1/api-keys", 422, {"user_id": ada, "role": "admin"})
    assert told["errors"][0]["field"] == "body.role"


async def test_rotation_gives_a_new_secret_at_once_and_the_one_before_lasts_as_long_as_was_said(
    owner: Client, callers: Callers
) -> None:
    key_id, first = await issued(callers, owner)
    rotated = await sent(first, "POST", f"/v1/api-keys/{key_id}/rotate", 200, {"overlap_minutes": 5})
    ends_at = datetime.fromisoformat(rotated["former_ends_at"])
    assert timedelta(minutes=4) < ends_at - datetime.now(UTC) <= timedelta(minutes=5)
    second = await callers.with_key(rotated["key"])
    for client in (first, second):
        (listed,) = (await client.get("/v1/api-keys"))["api_keys"]
        assert (listed["id"], listed["prefix"]) == (key_id, rotated["prefix"])
    again = await sent(second, "POST", f"/v1/api-keys/{key_id}/rotate", 200, {"overlap_minutes": 0})
    third = await callers.with_key(again["key"])
    await refused(first)
    await refused(second)
    await sent(third, "DELETE", f"/v1/api-keys/{key_id}", 204)
    await refused(third)
    await sent(owner, "POST", f"/v1/api-keys/{key_id}/rotate", 409, {})


async def test_a_users_keys_follow_the_user(owner: Client, callers: Callers) -> None:
    user = (await invited(owner, "admin"))["user_id"]
    _, theirs = await issued(callers, owner, user_id=user, role="admin")
    assert (await theirs.get("/v1/session"))["role"] == "admin"
    await sent(owner, "PATCH", f"/v1/users/{user}", 204, {"role": "member"})
    await eventually(lambda: theirs.get("/v1/session"), lambda me: me["role"] == "member", within=2)
    assert (await theirs.http.get("/v1/users")).status_code == 403
    await sent(owner, "PATCH", f"/v1/users/{user}", 204, {"role": "admin"})
    await sent(owner, "POST", f"/v1/users/{user}/suspend", 204)
    assert "suspended" in (await refused(theirs)).json()["detail"]
    await sent(owner, "POST", f"/v1/users/{user}/resume", 204)
    assert (await theirs.get("/v1/session"))["role"] == "admin"
    await sent(owner, "DELETE", f"/v1/users/{user}", 204)
    assert "revoked" in (await refused(theirs)).json()["detail"]
    await sent(owner, "POST", f"/v1/users/{user}/resume", 404)
    record = await eventually(lambda: owner.events(subject=f"user:{user}"), lambda found: len(found) == 6)
    assert [one["type"] for one in record] == [
        "user.invited.v2",
        "user.role_changed.v1",
        "user.role_changed.v1",
        "user.suspended.v1",
        "user.resumed.v1",
        "user.removed.v1",
    ]


async def test_an_invitation_works_once_and_an_address_is_in_no_event(owner: Client) -> None:
    user = await invited(owner)
    again = await sent(owner, "POST", f"/v1/users/{user['user_id']}/invitation", 201)
    for token, status in ((user["token"], 404), (again["token"], 200), (again["token"], 404), ("x", 404)):
        answer = await owner.http.post("/v1/invitations/accept", json={"token": token, "password": PASSWORD})
        assert answer.status_code == status, answer.text
    await sent(owner, "POST", "/v1/users", 409, {"name": "other", "email": user["email"].upper()})
    await sent(owner, "POST", "/v1/users", 409, {"name": user["name"], "email": "other@example.com"})
    await eventually(lambda: owner.events(type="user.invitation_accepted.v1"), bool)
    record = str(await owner.events())
    assert "@" not in record
    assert PASSWORD not in record


@pytest.mark.parametrize("password", ["short", "x" * 1025, "\ud800" * 12])
async def test_a_password_that_cannot_be_one_is_named_and_not_shown(admin: Client, password: str) -> None:
    answer = await admin.http.post(
        "/v1/invitations/accept",
        content=b'{"token": "x", "password": "%b"}' % password.encode("ascii", "backslashreplace"),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 422
    assert "body.password" in answer.text
    assert password[:12].encode("ascii", "backslashreplace").decode() not in answer.text
