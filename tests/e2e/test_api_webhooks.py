"""Webhooks over HTTP, from adding one to what its receiver gets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.client import Client, eventually
from tests.receiver import receiver

pytestmark = pytest.mark.timeout(120)

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "webhooks.md"
WORD = "zebrafish"


async def test_a_webhook_is_told_of_what_it_chose_and_verifies_it_as_the_docs_say(admin: Client) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", HOW_TO.read_text(), re.DOTALL)
    shown: dict[str, Any] = {}
    exec(snippet, shown)
    async with receiver() as hook:
        body = {"url": hook.url + "?token=x", "event_types": ["generation.completed", "webhook.removed"]}
        response = await admin.http.post("/v1/webhooks", json=body)
        assert response.status_code == 201, response.text
        added = response.json()
        assert added["url"] == hook.url
        tested = await admin.http.post(f"/v1/webhooks/{added['id']}/test")
        assert (tested.status_code, tested.json()["delivered"], tested.json()["status"]) == (200, True, 204)
        accepted = await admin.submit(f"tell me of the {WORD}")
        await admin.ended(accepted["generation_id"])
        test, told = await hook.has(2)
        assert test.event["type"] == "webhook.test.v1"
        assert told.event["type"] == "generation.completed.v3"
        assert told.event["data"]["generation_id"] == accepted["generation_id"]
        for one in (test, told):
            assert WORD.encode() not in one.body
            assert one.is_signed_with(added["secret"])
            assert shown["is_genuine"](one.headers, one.body, added["secret"])
            assert not shown["is_genuine"](one.headers, one.body + b" ", added["secret"])
            old = one.headers | {"webhook-timestamp": "1700000000"}
            assert not shown["is_genuine"](old, one.body, added["secret"])
        (listed,) = await eventually(lambda: webhooks(admin), lambda all: all[0]["told_to"] > 0)
        assert (listed["id"], listed["status"], listed["failures"]) == (added["id"], "active", 0)
        events = await eventually(lambda: admin.events(type="webhook.added.v1"), bool)
        assert events[0]["data"] == {
            "webhook_id": added["id"],
            "url": hook.url,
            "event_types": ["generation.completed", "webhook.removed"],
        }
        assert (await admin.http.delete(f"/v1/webhooks/{added['id']}")).status_code == 204
        assert await webhooks(admin) == []
        await eventually(lambda: admin.events(type="webhook.removed.v1"), bool)
    assert "whsec_" not in str(await admin.events()) + str(listed)


async def test_one_that_fails_shows_why(admin: Client) -> None:
    async with receiver() as hook:
        hook.otherwise = 500
        added = (await admin.http.post("/v1/webhooks", json={"url": hook.url, "event_types": ["webhook.added"]})).json()
        (listed,) = await eventually(lambda: webhooks(admin), lambda all: all[0]["status"] == "failing")
        assert (listed["last_failure"], listed["disabled_at"]) == ("it answered 500", None)
        assert listed["next_try_at"] is not None
        tested = (await admin.http.post(f"/v1/webhooks/{added['id']}/test")).json()
        assert (tested["delivered"], tested["failure"]) == (False, "it answered 500")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"url": "ftp://hooks.example.com", "event_types": ["key.revoked"]}, "body.url"),
        ({"url": "https://me:secret@hooks.example.com", "event_types": ["key.revoked"]}, "body.url"),
        ({"url": "https://hooks.example.com", "event_types": []}, "body.event_types"),
        ({"url": "https://hooks.example.com", "event_types": ["tokens.emitted"]}, "body.event_types.0"),
        ({"url": "https://hooks.example.com"}, "body.event_types"),
    ],
)
async def test_what_is_wrong_with_a_webhook_is_named(admin: Client, body: dict[str, Any], field: str) -> None:
    response = await admin.http.post("/v1/webhooks", json=body)
    assert response.status_code == 422
    assert [one["field"] for one in response.json()["errors"]] == [field]
    assert "secret" not in response.text


async def webhooks(client: Client) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = (await client.get("/v1/webhooks"))["webhooks"]
    return listed
