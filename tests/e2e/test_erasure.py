"""What was written is found nowhere in plain text, and is gone everywhere when its key is."""

from __future__ import annotations

import json
import secrets

import pytest

from backplane.ports.bus import Bus, Position
from backplane.settings import Settings
from backplane.wiring.operations import operator_bus
from event_schemas.topics import commands, dead_letters
from tests.e2e.canary import Canary, in_files, in_postgres, in_redis
from tests.e2e.client import Client, Json, eventually
from tests.e2e.conftest import Callers
from tests.e2e.running import Up

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def canary() -> Canary:
    return Canary(f"canary{secrets.token_hex(16)}")


async def everywhere_but_redis(parley: Up, canary: Canary) -> list[str]:
    return [*[found async for found in in_postgres(parley, canary)], *map(str, in_files(parley, canary))]


async def tell(client: Client, canary: Canary) -> Json:
    """A prompt that has it wherever people and models write, and its answer."""
    word = canary.word
    accepted = await client.submit(
        f"sing of {word}",
        system=f"you are {word}",
        metadata={"about": word},
        parameters={"stop": [f"no more {word}"]},
        script={"tokens": ["it ", "is ", word, " that ", "sings"], "delay_s": 0.1},
        idempotency_key=secrets.token_hex(8),
    )
    ended = await client.ended(accepted["generation_id"])
    assert ended["content"] == f"it is {word} that sings"
    assert ended["parameters"]["stop"] == [f"no more {word}"]
    return accepted


async def read(bus: Bus, topic: str) -> list[bytes]:
    found: list[bytes] = []
    for partition in range(len(await bus.heads(topic))):
        after: Position | None = None
        while messages := await bus.read(topic, partition, after=after, limit=1000):
            found += [message.payload for message in messages]
            after = messages[-1].position
    return found


async def set_aside(parley: Up, generation_id: str) -> None:
    """A copy of its command that cannot be handled."""
    settings = Settings(data_dir=parley.data, pools=json.loads(parley.environment["PARLEY_POOLS"]))
    async with operator_bus(settings) as bus:
        topic = commands("local")
        subject = f"generation:{generation_id}"
        payload = next(one for one in await read(bus, topic) if json.loads(one)["subject"] == subject)
        broken = payload.replace(b'"pool":', b'"no_pool":', 1)
        assert broken != payload
        await bus.publish(topic, broken)

        async def is_there() -> bool:
            return broken in await read(bus, dead_letters(topic))

        await eventually(is_there, bool)


async def test_what_was_written_is_in_redis_alone_and_after_erasing_nowhere(
    parley: Up, callers: Callers, canary: Canary
) -> None:
    admin = await callers.admin()
    accepted = await tell(admin, canary)
    generation, conversation = accepted["generation_id"], accepted["conversation_id"]
    assert canary.word in (await admin.get(f"/v1/conversations/{conversation}"))["title"]
    renamed = await admin.http.patch(f"/v1/conversations/{conversation}", json={"title": f"on {canary.word}"})
    assert renamed.status_code == 200
    following = await admin.submit("go on", conversation_id=conversation)
    await admin.ended(following["generation_id"])
    await set_aside(parley, generation)
    assert await everywhere_but_redis(parley, canary) == []
    assert [found async for found in in_redis(parley, canary)], "followers read it there for a while"
    listed = parley.parley("dlq", "list")
    letter = next(json.loads(line)["id"] for line in listed.splitlines() if generation in line)
    shown = parley.parley("dlq", "show", letter, "--content")
    assert '"sealed"' in shown
    assert canary.word not in listed + shown + parley.parley("dlq", "show", letter)

    erased = await admin.http.post(f"/v1/conversations/{conversation}/erase")
    assert erased.status_code == 204
    assert await everywhere_but_redis(parley, canary) == []
    assert [found async for found in in_redis(parley, canary)] == []
    ended = await admin.generation(generation)
    assert (ended["erased"], ended["content"], ended["metadata"]) == (True, None, None)
    assert (ended["status"], ended["usage"]["output_tokens"]) == ("completed", 5)
    answer = await admin.follow(generation)
    assert (answer.text, answer.told[-1]) == ("", "completed")
    whole = await admin.get(f"/v1/conversations/{conversation}")
    assert whole["title"] is None
    assert {message["erased"] for message in whole["messages"]} == {True}
    assert canary.word not in json.dumps([whole, await admin.get("/v1/conversations"), await admin.events()])
    (event,) = await admin.events(type="content.erased.v1")
    assert event["data"] == {"conversation_id": conversation, "reason": "asked"}
    # The chain holds, and the read models are what the log says, and the bus.
    parley.parley("rebuild", "all", "--check")
    parley.parley("rebuild", "all", "--check", "--from-bus")
    # It may go on, and knows nothing of before.
    again = await admin.submit("two words", conversation_id=conversation)
    assert (await admin.ended(again["generation_id"]))["usage"]["input_tokens"] == 2


async def test_deleting_a_conversation_takes_what_was_written_away(
    parley: Up, callers: Callers, canary: Canary
) -> None:
    admin = await callers.admin()
    conversation = (await tell(admin, canary))["conversation_id"]
    assert (await admin.http.delete(f"/v1/conversations/{conversation}")).status_code == 204
    assert [*await everywhere_but_redis(parley, canary), *[one async for one in in_redis(parley, canary)]] == []
    assert canary.word not in json.dumps(await admin.events())


async def test_an_admin_erases_all_that_a_user_wrote_and_nothing_else(
    parley: Up, callers: Callers, canary: Canary
) -> None:
    tenant = await callers.tenant()
    admin = await callers.caller(tenant, "admin")
    ada, bob = [await callers.caller(tenant, "member", name) for name in ("ada", "bob")]
    of_ada = [await tell(ada, canary) for _ in range(2)]
    other = Canary(f"canary{secrets.token_hex(16)}")
    of_bob = await tell(bob, other)
    invited = await eventually(lambda: admin.events(type="user.invited.v2"), lambda found: len(found) == 2)
    user = next(one["data"]["user_id"] for one in invited if one["data"]["name"] == "ada")
    assert (await bob.http.post(f"/v1/users/{user}/erase")).status_code == 403
    erased = await admin.http.post(f"/v1/users/{user}/erase")
    assert (erased.status_code, erased.json()) == (200, {"conversations": 2})
    assert [*await everywhere_but_redis(parley, canary), *[one async for one in in_redis(parley, canary)]] == []
    for accepted in of_ada:
        assert (await ada.generation(accepted["generation_id"]))["erased"]
    assert other.word in (await bob.generation(of_bob["generation_id"]))["content"]
    told = await admin.events(type="content.erased.v1")
    assert {one["data"]["conversation_id"] for one in told} == {one["conversation_id"] for one in of_ada}
    assert {one["data"]["reason"] for one in told} == {"user_erased"}


async def test_what_runs_in_an_erased_conversation_is_cancelled(admin: Client) -> None:
    running = await admin.submit("sing", script={"count": 10_000, "delay_s": 0.05})
    waiting = await admin.submit("on", parent_message_id=running["message_id"])
    await eventually(lambda: admin.generation(running["generation_id"]), lambda found: found["status"] == "running")
    await admin.http.post(f"/v1/conversations/{running['conversation_id']}/erase")
    for accepted in (running, waiting):
        ended = await admin.ended(accepted["generation_id"])
        assert ended["status"] == "cancelled" or ended["reason"] == "content_erased"
        assert ended["content"] is None


async def test_a_tenant_may_keep_nothing(parley: Up, callers: Callers, canary: Canary) -> None:
    tenant = await callers.tenant()
    admin = await callers.caller(tenant, "admin")
    policy = {"keeps_content": False, "content_days": None}
    assert json.loads(parley.parley("tenant", "content", str(tenant), "--keep-none")) == policy
    accepted = await admin.submit(f"sing of {canary.word}", script={"tokens": ["it is ", canary.word], "delay_s": 0.3})
    answer = await admin.follow(accepted["generation_id"])
    assert answer.text == f"it is {canary.word}", "who follows gets all of it"
    ended = await admin.ended(accepted["generation_id"])
    assert (ended["status"], ended["erased"], ended["content"]) == ("completed", True, None)
    assert await everywhere_but_redis(parley, canary) == []
    conversation = accepted["conversation_id"]
    following = await admin.submit("three more words", conversation_id=conversation)
    assert (await admin.ended(following["generation_id"]))["usage"]["input_tokens"] == 3, "it has no memory"
    refused = await admin.http.patch(f"/v1/conversations/{conversation}", json={"title": "kept"})
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:parley:problem:content-not-kept")
    kept = await admin.http.put("/v1/content-policy", json={"keeps_content": True, "content_days": 90})
    assert (kept.status_code, kept.json()) == (200, {"keeps_content": True, "content_days": 90})
    last = await admin.submit("and so on", conversation_id=conversation)
    assert (await admin.ended(last["generation_id"]))["content"]
