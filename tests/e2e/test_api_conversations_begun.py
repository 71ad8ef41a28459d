"""Conversations that are begun before anything is said."""

from __future__ import annotations

import json
import secrets
from uuid import uuid4

import pytest

from tests.e2e.canary import Canary, in_files, in_postgres, in_redis
from tests.e2e.client import Client, Json
from tests.e2e.conftest import Callers
from tests.e2e.running import Up

pytestmark = pytest.mark.timeout(180)


async def begun(client: Client, **body: str) -> str:
    answer = await client.http.post("/v1/conversations", json=body)
    assert answer.status_code == 201, answer.text
    conversation_id: str = answer.json()["conversation_id"]
    return conversation_id


async def shown(client: Client, conversation_id: str) -> Json:
    return await client.get(f"/v1/conversations/{conversation_id}")


async def test_it_is_read_at_once_and_the_first_prompt_begins_in_it(parley: Up, admin: Client) -> None:
    named, unnamed = await begun(admin, title="Mine"), await begun(admin)
    for conversation_id, title in (named, "Mine"), (unnamed, None):
        found = await shown(admin, conversation_id)
        assert (found["title"], found["state"], found["messages"], found["erased"]) == (title, "active", [], False)
        assert found["created_at"] == found["updated_at"]
    listed = (await admin.get("/v1/conversations"))["conversations"]
    assert [one["id"] for one in listed] == [unnamed, named]
    for conversation_id, title in (named, "Mine"), (unnamed, "one two"):
        first = await admin.submit("one two", conversation_id=conversation_id, script={"tokens": ["three"]})
        assert (first["conversation_id"], first["parent_message_id"]) == (conversation_id, None)
        second = await admin.submit("four", conversation_id=conversation_id, script={"tokens": ["five"]})
        assert second["parent_message_id"] == first["message_id"]
        assert (await admin.ended(second["generation_id"]))["status"] == "completed"
        found = await shown(admin, conversation_id)
        assert found["title"] == title
        assert [one["content"] for one in found["messages"]] == ["one two", "three", "four", "five"]
    (told,) = (one for one in await admin.events(type="conversation.begun.v1") if named in one["subject"])
    assert "Mine" not in json.dumps(told)
    parley.parley("rebuild", "all", "--check")


async def test_what_is_not_said_yet_can_be_named_suspended_ended_and_deleted_and_has_nothing_to_fork(
    admin: Client,
) -> None:
    conversation_id = await begun(admin)
    path = f"/v1/conversations/{conversation_id}"
    assert (await admin.http.patch(path, json={"title": "Mine"})).is_success
    assert (await admin.http.post(f"{path}/fork", json={})).status_code == 404
    assert (await admin.http.post(f"{path}/suspend")).json()["state"] == "suspended"
    assert (await admin.post_prompt("x", conversation_id=conversation_id)).status_code == 409
    assert (await admin.http.post(f"{path}/resume")).json()["state"] == "active"
    assert (await admin.http.post(f"{path}/end")).json()["state"] == "ended"
    assert (await shown(admin, conversation_id))["title"] == "Mine"
    assert (await admin.http.delete(path)).status_code == 204
    assert (await admin.http.get(path)).status_code == 404
    assert (await admin.post_prompt("x", conversation_id=conversation_id)).status_code == 404


async def test_its_title_is_erased_with_it_and_it_may_go_on(parley: Up, callers: Callers) -> None:
    admin = await callers.admin()
    canary = Canary(f"canary{secrets.token_hex(16)}")
    conversation_id = await begun(admin, title=f"of {canary.word}")
    assert canary.word in (await shown(admin, conversation_id))["title"]
    assert (await admin.http.post(f"/v1/conversations/{conversation_id}/erase")).status_code == 204
    found = [one async for one in in_postgres(parley, canary)] + [str(one) for one in in_files(parley, canary)]
    assert [*found, *[one async for one in in_redis(parley, canary)]] == []
    row = await shown(admin, conversation_id)
    assert (row["title"], row["erased"]) == (None, True)
    accepted = await admin.submit("on", conversation_id=conversation_id, script={"tokens": ["and on"]})
    assert (await admin.ended(accepted["generation_id"]))["status"] == "completed"
    assert [one["content"] for one in await admin.messages(conversation_id)] == ["on", "and on"]


async def test_it_is_its_users_alone(admin: Client, callers: Callers) -> None:
    tenant_id = await callers.tenant()
    ada, bob = [await callers.caller(tenant_id, "member", name) for name in ("ada", "bob")]
    boss = await callers.caller(tenant_id, "admin")
    conversation_id = await begun(ada, title="Hers")
    for other in (bob, admin):
        assert (await other.http.get(f"/v1/conversations/{conversation_id}")).status_code == 404
        assert (await other.post_prompt("x", conversation_id=conversation_id)).status_code == 404
    # Who may see all may say something there; it stays hers.
    accepted = await boss.submit("x", conversation_id=conversation_id)
    await boss.ended(accepted["generation_id"])
    assert len((await shown(ada, conversation_id))["messages"]) == 2


async def test_who_keeps_no_content_begins_one_without_a_title(callers: Callers) -> None:
    admin = await callers.admin()
    assert (await admin.http.put("/v1/content-policy", json={"keeps_content": False})).is_success
    refused = await admin.http.post("/v1/conversations", json={"title": "Mine"})
    assert (refused.status_code, refused.json()["type"].rpartition(":")[2]) == (409, "content-not-kept")
    conversation_id = await begun(admin)
    accepted = await admin.submit("x", conversation_id=conversation_id)
    assert (await admin.ended(accepted["generation_id"]))["status"] == "completed"
    assert (await shown(admin, conversation_id))["title"] is None


@pytest.mark.parametrize("body", [{"title": ""}, {"title": "x" * 201}, {"id": str(uuid4())}])
async def test_what_it_cannot_be_called_is_refused_by_name(admin: Client, body: Json) -> None:
    refused = await admin.http.post("/v1/conversations", json=body)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == f"body.{next(iter(body))}"
