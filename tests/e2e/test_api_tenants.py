"""Tenants never meet, and within one everybody sees what their role lets them see."""

from __future__ import annotations

import json
from uuid import UUID

import httpx
import pytest

from backplane.ports.identifiers import new_id
from backplane.settings import Settings
from cli.tenancy import FIRST_TENANT, find_tenant
from tests.e2e.client import Client, Json, eventually
from tests.e2e.conftest import KEYED, Callers
from tests.e2e.running import Up

pytestmark = pytest.mark.timeout(120)

WORD = "zebrafish"
NOWHERE = "http://127.0.0.1:9/"
IDS = ("generation_id", "conversation_id", "provider_key_id", "webhook_id", "user_id")


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


async def user(callers: Callers, admin: Client, tenant: UUID) -> str:
    """The id of somebody in this tenant, of which ``admin`` is the admin."""
    name = f"user {new_id()}"
    await callers.caller(tenant, "member", name)
    invited = await eventually(
        lambda: admin.events(type="user.invited.v1"), lambda found: name in [one["data"]["name"] for one in found]
    )
    found: str = next(one["data"]["user_id"] for one in invited if one["data"]["name"] == name)
    return found


def bodies(method: str, path: str) -> Json | None:
    return {"title": "mine now"} if (method, path) == ("patch", "/v1/conversations/{conversation_id}") else None


async def asked_of_everything(client: Client, ids: Json, document: Json) -> dict[str, httpx.Response]:
    """Every operation that the API pages name and that takes an id, with the ids of ``ids``."""
    answers = {}
    for path, operations in document["paths"].items():
        for method in operations:
            if "{" in path:
                url = path.format(**{name: ids[name] for name in IDS})
                answers[f"{method} {path}"] = await client.http.request(method, url, json=bodies(method, path))
    answers["prompt in the conversation"] = await client.post_prompt("x", conversation_id=ids["conversation_id"])
    answers["prompt after the answer"] = await client.post_prompt("x", parent_message_id=ids["message_id"])
    answers["regeneration"] = await client.post_prompt(parent_message_id=ids["input_message_ids"][0])
    answers["prompt in the conversation, anew"] = await client.post_prompt(
        "x", conversation_id=ids["conversation_id"], parent_message_id=None
    )
    return answers


async def test_another_tenants_ids_are_not_there(parley: Up, callers: Callers) -> None:
    # As an operator makes a second tenant beside a running Parley.
    parley.parley("tenant", "create", "acme")
    acme = await callers.with_key(parley.parley("key", "issue", "--tenant", "acme", "--role", "admin").strip())
    first = await callers.with_key(parley.admin_key)
    default = await find_tenant(Settings(data_dir=parley.data), FIRST_TENANT)
    theirs = await said(first) | {
        "provider_key_id": await provider_key(first),
        "webhook_id": await webhook(first),
        "user_id": await user(callers, first, default),
    }
    own = await said(acme, "something else")
    answers = await asked_of_everything(acme, theirs, await acme.get("/openapi.json"))
    assert len(answers) >= 10
    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(answers, 404)
    never_there = dict.fromkeys(IDS, "01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d11")
    for name, answer in answers.items():
        path = name.partition(" ")[2]
        if "{" in path:
            missing = await acme.http.request(
                name.partition(" ")[0], path.format(**never_there), json=bodies(*name.split())
            )
            # What is somebody else's and what never was look the same.
            assert {**answer.json(), "request_id": ""} == {**missing.json(), "request_id": ""}
    assert [one["id"] for one in (await acme.get("/v1/conversations"))["conversations"]] == [own["conversation_id"]]
    assert (await acme.get("/v1/conversations", search=WORD))["conversations"] == []
    assert (await acme.get("/v1/provider-keys"))["provider_keys"] == []
    assert (await acme.get("/v1/webhooks"))["webhooks"] == []
    (usage,) = (await acme.get("/v1/usage", group_by="model"))["groups"]
    assert usage["generations"] == 1
    record = json.dumps(await acme.events())
    assert own["generation_id"] in record
    for foreign in (
        theirs["generation_id"],
        theirs["conversation_id"],
        theirs["provider_key_id"],
        theirs["webhook_id"],
        WORD,
    ):
        assert foreign not in record
    assert await acme.events(subject=f"generation:{theirs['generation_id']}") == []
    # Nothing of all that did anything.
    assert (await first.get(f"/v1/conversations/{theirs['conversation_id']}"))["title"] != "mine now"
    assert (await first.generation(theirs["generation_id"]))["status"] == "completed"
    assert len(await first.messages(theirs["conversation_id"])) == 2
    assert theirs["provider_key_id"] in [one["id"] for one in (await first.get("/v1/provider-keys"))["provider_keys"]]


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
    ids = {
        "provider_key_id": await provider_key(admin),
        "webhook_id": await webhook(admin),
        "user_id": await user(callers, admin, tenant),
    }
    answers = await asked_of_everything(bob, of_ada | ids, await bob.get("/openapi.json"))
    for of_admins in (
        "delete /v1/provider-keys/{provider_key_id}",
        "delete /v1/webhooks/{webhook_id}",
        "post /v1/webhooks/{webhook_id}/test",
        "post /v1/users/{user_id}/erase",
    ):
        assert answers.pop(of_admins).status_code == 403
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
    tenant = await callers.tenant()
    clients = {role: await callers.caller(tenant, role, role) for role in ("admin", "member", "auditor")}
    ids = await said(clients["member"])
    generation, conversation = f"/v1/generations/{ids['generation_id']}", f"/v1/conversations/{ids['conversation_id']}"
    key = f"/v1/provider-keys/{await provider_key(clients['admin'])}"
    hook = f"/v1/webhooks/{await webhook(clients['admin'])}"
    work = {"admin", "member"}
    may = {
        ("POST", "/v1/prompts"): work,
        ("POST", f"{generation}/cancel"): work,
        ("PATCH", conversation): work,
        ("GET", generation): work,
        ("GET", f"{generation}/stream"): work,
        ("GET", "/v1/conversations"): work,
        ("GET", conversation): work,
        ("GET", "/v1/usage"): work,
        ("GET", "/v1/events"): {"admin", "auditor"},
        ("DELETE", conversation): work,
        ("POST", "/v1/provider-keys"): {"admin"},
        ("GET", "/v1/provider-keys"): {"admin"},
        ("DELETE", key): {"admin"},
        ("POST", "/v1/webhooks"): {"admin"},
        ("GET", "/v1/webhooks"): {"admin"},
        ("POST", f"{hook}/test"): {"admin"},
        ("DELETE", hook): {"admin"},
    }
    paths = (await clients["admin"].get("/openapi.json"))["paths"]
    assert len(may) == sum(len(operations) for path, operations in paths.items() if path.startswith("/v1/"))
    sent = {
        "/v1/prompts": {"input": "x"},
        conversation: {"title": "x"},
        "/v1/provider-keys": {"pool": KEYED, "key": "sk-x"},
        "/v1/webhooks": {"url": NOWHERE, "event_types": ["key.revoked"]},
    }
    for (method, path), roles in may.items():
        # Who may not comes first: what they try must not do anything.
        for role in sorted(clients, key=lambda role: role in roles):
            body = sent.get(path) if method in ("POST", "PATCH") else None
            response = await clients[role].http.request(method, path, json=body)
            if role not in roles:
                assert response.status_code == 403, (method, path, role)
                assert response.json()["role"] == role
            elif (method, role) == ("DELETE", "member"):
                assert response.status_code == 404  # the admin was faster
            else:
                assert response.is_success, (method, path, role, response.text)


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
