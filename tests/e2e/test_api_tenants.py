"""Tenants never meet, and within one everybody sees what their role lets them see."""

from __future__ import annotations

import json
import re

import httpx
import pytest

from backplane.ports.identifiers import new_id
from event_schemas.control_plane import KeyRole
from tests.e2e.client import Client, Json, eventually
from tests.e2e.conftest import KEYED, Callers
from tests.e2e.running import Up

pytestmark = pytest.mark.timeout(120)

WORD = "zebrafish"
NOWHERE = "http://127.0.0.1:9/"
IDS = (
    "generation_id",
    "conversation_id",
    "provider_key_id",
    "user_id",
    "api_key_id",
    "session_id",
    "tenant_id",
    "webhook_id",
    "provider",
    "dead_letter_id",
)
ADMINS = ("provider-keys", "/users/", "/webhooks/", "/limits/", "/v1/tenants", "/v1/dead-letters")
"""What stands in paths that no member may ask."""
PLATFORMS = ("/v1/tenants", "/v1/dead-letters")
"""How paths begin that only platform admins may ask."""


async def said(client: Client, text: str = f"tell me of the {WORD}") -> Json:
    accepted = await client.submit(text)
    await client.ended(accepted["generation_id"])
    return accepted


async def provider_key(client: Client) -> str:
    """The id of a provider key of this client's tenant."""
    response = await client.http.post("/v1/provider-keys", json={"pool": KEYED, "key": f"sk-{WORD}-{new_id()}"})
    assert response.status_code == 201, response.text
    added: str = response.json()["id"]
    return added


async def webhook(client: Client) -> str:
    """The id of a webhook of this client's tenant."""
    response = await client.http.post("/v1/webhooks", json={"url": NOWHERE, "event_types": ["key.revoked"]})
    assert response.status_code == 201, response.text
    added: str = response.json()["id"]
    return added


async def of_people(client: Client, callers: Callers) -> Json:
    """Ids of a user, a key and a session of this client's tenant."""
    invited = await client.http.post("/v1/users", json={"name": f"n {new_id()}", "email": f"{new_id()}@example.com"})
    key = await client.http.post("/v1/api-keys", json={"name": "theirs"})
    with_key = await callers.with_key(key.json()["key"])
    session = await with_key.http.post("/v1/session/from-key")
    assert (invited.status_code, key.status_code, session.status_code) == (201, 201, 201)
    return {
        "user_id": invited.json()["user_id"],
        "api_key_id": key.json()["id"],
        "session_id": session.json()["id"],
        "provider": "no-such-provider",
        "dead_letter_id": "events-dlq:0:0:1",
        "webhook_id": await webhook(client),
        "tenant_id": (await client.get("/v1/session"))["tenant_id"],
    }


BODIES: dict[str, Json] = {
    "patch /v1/conversations/{conversation_id}": {"title": "mine now"},
    "patch /v1/users/{user_id}": {"role": "member"},
    "post /v1/conversations/{conversation_id}/fork": {},
    "post /v1/api-keys/{api_key_id}/rotate": {},
    "patch /v1/tenants/{tenant_id}/share": {},
}


async def asked_of_everything(client: Client, ids: Json, document: Json) -> dict[str, httpx.Response]:
    """Every operation that the API pages name and that takes an id, with the ids of ``ids``."""
    answers = {}
    for path, operations in document["paths"].items():
        for method in operations:
            if "{" in path and {*re.findall(r"{(\w+)}", path)} <= {*IDS}:
                url = path.format(**ids)
                name = f"{method} {path}"
                answers[name] = await client.http.request(method, url, json=BODIES.get(name))
    answers["prompt in the conversation"] = await client.post_prompt("x", conversation_id=ids["conversation_id"])
    answers["prompt after the answer"] = await client.post_prompt("x", parent_message_id=ids["message_id"])
    answers["regeneration"] = await client.post_prompt(parent_message_id=ids["input_message_ids"][0])
    answers["prompt in the conversation, anew"] = await client.post_prompt(
        "x", conversation_id=ids["conversation_id"], parent_message_id=None
    )
    return answers


async def test_an_operator_sets_a_tenants_share_and_its_prompts_carry_it(parley: Up, callers: Callers) -> None:
    tenant = await callers.tenant()
    admin = await callers.caller(tenant, "admin")
    share = {"weight": 3, "priority": "high"}
    shown = parley.parley("tenant", "share", str(tenant), "--weight", "3", "--priority", "high")
    assert json.loads(shown) == share
    (told,) = await eventually(lambda: admin.events(type="tenant.share_set.v1"), bool)
    assert (told["actor"], told["data"]["share"]) == ("operator", share)
    # Nothing was remembered of the key before it was first used.
    generation = (await said(admin))["generation_id"]
    prompt, *_ = await eventually(lambda: admin.events(type="prompt.submit.v3"), bool)
    assert (prompt["data"]["generation_id"], prompt["data"]["share"]) == (generation, share)


async def test_a_member_sees_its_own_and_an_admin_sees_all(callers: Callers) -> None:
    tenant = await callers.tenant()
    admin = await callers.caller(tenant, "admin")
    ada, bob = [await callers.caller(tenant, "member", name) for name in ("ada", "bob")]
    ada_elsewhere = await callers.caller(tenant, "member", "ada")
    of_ada, of_bob = await said(ada), await said(bob)
    ids = of_ada | {"provider_key_id": await provider_key(admin)} | await of_people(admin, callers)
    answers = await asked_of_everything(bob, ids, await bob.get("/openapi.json"))
    for name in [name for name in answers if any(part in name for part in ADMINS)]:
        assert answers.pop(name).status_code == 403, name
    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(answers, 404)
    # A person's keys are the same person.
    for client, seen in ((ada, {of_ada["conversation_id"]}), (ada_elsewhere, {of_ada["conversation_id"]})):
        assert {one["id"] for one in (await client.get("/v1/conversations"))["conversations"]} == seen
        assert (await client.generation(of_ada["generation_id"]))["content"]
        assert (await client.get("/v1/usage"))["groups"][0]["generations"] == 1
    both = {of_ada["conversation_id"], of_bob["conversation_id"]}
    assert {one["id"] for one in (await admin.get("/v1/conversations"))["conversations"]} == both
    assert (await admin.get("/v1/usage"))["groups"][0]["generations"] == 2
    assert (await admin.follow(of_bob["generation_id"])).told[-1] == "completed"
    # An admin may go on in a member's conversation, and the member sees that.
    await admin.ended((await admin.submit("more", parent_message_id=of_ada["message_id"]))["generation_id"])
    assert len(await ada.messages(of_ada["conversation_id"])) == 4


async def test_roles_may_do_what_is_theirs_and_nothing_else(callers: Callers) -> None:
    """Which role may call which route is in tests/unit/backplane/test_permissions.py; here they really do."""
    tenant = await callers.tenant()
    roles: tuple[KeyRole, ...] = ("admin", "member", "auditor")
    clients = {role: await callers.caller(tenant, role, role) for role in roles}
    ids = await said(clients["member"])
    generation, conversation = f"/v1/generations/{ids['generation_id']}", f"/v1/conversations/{ids['conversation_id']}"
    work, everybody = {"admin", "member"}, {"admin", "member", "auditor"}
    may = {
        ("POST", "/v1/prompts"): work,
        ("POST", f"{generation}/cancel"): work,
        ("PATCH", conversation): work,
        ("GET", generation): work,
        ("GET", f"{generation}/stream"): work,
        ("GET", "/v1/conversations"): work,
        ("GET", conversation): work,
        ("GET", "/v1/usage"): work,
        ("GET", "/v1/usage/attempts"): work,
        ("GET", "/v1/events"): {"admin", "auditor"},
        ("GET", "/v1/session"): everybody,
        ("GET", "/v1/sessions"): everybody,
        ("GET", "/v1/api-keys"): work,
        ("GET", "/v1/users"): {"admin"},
        ("GET", "/v1/provider-keys"): {"admin"},
        ("GET", "/v1/tenants"): set(),
    }
    sent = {"/v1/prompts": {"input": "x"}, conversation: {"title": "x"}}
    for (method, path), who in may.items():
        for role, client in clients.items():
            body = sent.get(path) if method in ("POST", "PATCH") else None
            response = await client.http.request(method, path, json=body)
            if role in who:
                assert response.is_success, (method, path, role, response.text)
            else:
                assert response.status_code == 403, (method, path, role)
                assert response.json()["role"] == role


async def test_a_revoked_key_is_refused_at_once_and_its_data_stay(callers: Callers) -> None:
    tenant = await callers.tenant()
    admin, member = await callers.caller(tenant, "admin"), await callers.caller(tenant, "member", "ada")
    accepted = await said(member)
    key = member.http.headers["authorization"].split()[1]
    await callers.revoke(key)
    # Remembered keys live for five seconds; a revocation does not wait for that.
    await eventually(
        lambda: member.http.get("/v1/conversations"), lambda response: response.status_code == 401, within=2
    )
    assert (await admin.generation(accepted["generation_id"]))["status"] == "completed"
