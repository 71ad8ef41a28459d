"""Dead letters over HTTP: seen, replayed and discarded by platform admins, and told of in the platform's log.

Not among the `test_api_` modules, whose Parley has no dead letters.
"""

from __future__ import annotations

import json

import pytest

from backplane.settings import Settings
from backplane.wiring.operations import operator_bus
from event_schemas.topics import commands, dead_letters
from tests.e2e.client import Client, Json, eventually
from tests.e2e.conftest import Callers
from tests.e2e.running import Up

pytestmark = pytest.mark.timeout(300)

SECRET = "what a person wrote"
PATH = "/v1/dead-letters"


@pytest.fixture
async def platform(parley: Up, callers: Callers) -> Client:
    return await callers.with_key(
        parley.parley("key", "issue", "--tenant", "platform", "--role", "platform", "--name", "ops").strip()
    )


async def set_aside(parley: Up, payload: bytes, reason: str) -> None:
    settings = Settings(data_dir=parley.data, pools=json.loads(parley.environment["PARLEY_POOLS"]))
    async with operator_bus(settings) as bus:
        properties = {"dead_letter_topic": commands("local"), "dead_letter_reason": reason}
        await bus.publish(dead_letters(commands("local")), payload, properties=properties)


async def listed(client: Client, reason: str) -> Json:
    found = (await client.get(PATH))["dead_letters"]
    (letter,) = [one for one in found if one["reason"] == reason]
    assert isinstance(letter, dict)
    return letter


async def problem(client: Client, method: str, path: str) -> tuple[int, str]:
    answer = await client.http.request(method, path)
    return answer.status_code, answer.json()["type"].rpartition(":")[2]


async def test_a_platform_admin_sees_to_dead_letters(parley: Up, callers: Callers, platform: Client) -> None:
    tenant = await callers.tenant()
    admin = await callers.caller(tenant, "admin")
    accepted = await admin.submit(SECRET)
    await admin.ended(accepted["generation_id"])
    (prompt,) = await eventually(lambda: admin.events(type="prompt.submit.v3"), bool)
    await set_aside(parley, json.dumps(prompt).encode(), "attempts_exhausted")
    broken = {**prompt, "data": {"content": SECRET, "nobody_knows": SECRET}}
    await set_aside(parley, json.dumps(broken).encode(), "no schema fits")

    letter = await listed(platform, "attempts_exhausted")
    facts = {name: letter[name] for name in ("topic", "tenant_id", "type", "subject")}
    assert facts == {
        "topic": commands("local"),
        "tenant_id": str(tenant),
        "type": "prompt.submit.v3",
        "subject": prompt["subject"],
    }
    shown = await platform.get(f"{PATH}/{letter['id']}")
    commitment = prompt["data"]["content"]["commitment"]
    assert shown["envelope"]["data"]["content"] == f"encrypted, commitment {commitment}"
    assert {name: shown[name] for name in letter} == letter

    unreadable = await listed(platform, "no schema fits")
    shown = await platform.get(f"{PATH}/{unreadable['id']}")
    assert (shown["envelope"], shown["type"], shown["tenant_id"]) == (None, None, str(tenant))
    assert shown["bytes"] == len(json.dumps(broken))
    assert SECRET not in json.dumps(shown)

    assert await problem(platform, "POST", f"{PATH}/{unreadable['id']}/replay") == (409, "cannot-replay")
    for method, path in (("GET", "x"), ("DELETE", "x"), ("POST", "x/replay")):
        assert await problem(platform, method, f"{PATH}/{path}") == (404, "not-found")
    for method, path in (("GET", ""), ("GET", f"/{letter['id']}"), ("DELETE", f"/{letter['id']}")):
        assert (await admin.http.request(method, PATH + path)).status_code == 403

    replayed = await platform.http.post(f"{PATH}/{letter['id']}/replay")
    assert replayed.status_code == 200, replayed.text
    kind, _, generation = replayed.json()["subject"].partition(":")
    assert (kind, generation != accepted["generation_id"]) == ("generation", True)
    assert (await admin.ended(generation))["status"] == "completed"
    discarded = await platform.http.delete(f"{PATH}/{unreadable['id']}")
    assert discarded.status_code == 204, discarded.text
    assert (await platform.get(PATH))["dead_letters"] == []
    assert parley.parley("dlq", "list") == ""

    (told,) = await eventually(lambda: platform.events(type="dead_letter.replayed.v1"), bool)
    assert told["data"] == {
        "letter_id": letter["id"],
        "topic": commands("local"),
        "reason": "attempts_exhausted",
        "of_tenant_id": str(tenant),
        "replayed_as": replayed.json()["subject"],
    }
    (gone,) = await eventually(lambda: platform.events(type="dead_letter.discarded.v1"), bool)
    assert gone["data"]["letter_id"] == unreadable["id"]
    assert told["actor"] == gone["actor"] != "operator"

    # The command line tells the same log.
    await set_aside(parley, b"not JSON", "not JSON")
    parley.parley("dlq", "discard", (await listed(platform, "not JSON"))["id"])
    both = await eventually(lambda: platform.events(type="dead_letter.discarded.v1"), lambda found: len(found) == 2)
    assert sorted(one["actor"] for one in both) == sorted([gone["actor"], "operator"])
