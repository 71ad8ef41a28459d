"""Conversations through their life: the model's window, titles, summaries, forks, rest and end."""

from __future__ import annotations

import json
import secrets

import pytest

from tests.e2e.canary import Canary, in_files, in_postgres, in_redis
from tests.e2e.client import Client, Json, eventually
from tests.e2e.conftest import SMALL, SMALL_WINDOW, Callers
from tests.e2e.running import Up

pytestmark = pytest.mark.timeout(240)


async def said(client: Client, text: str, **body: object) -> Json:
    accepted = await client.submit(text, **body)
    ended = await client.ended(accepted["generation_id"])
    assert ended["status"] == "completed", ended
    return ended


async def refused(client: Client, path: str, body: Json | None = None) -> tuple[int, str]:
    answer = await client.http.post(path, json=body)
    return answer.status_code, answer.json()["type"].rpartition(":")[2]


async def test_a_long_conversation_slides_and_says_so(admin: Client) -> None:
    words = " ".join(["word"] * 15)
    script = {"count": 5}
    first = await said(admin, words, model=SMALL, script=script)
    assert first["left_out"] == 0
    conversation = first["conversation_id"]
    for place in range(1, 5):
        ended = await said(admin, words, model=SMALL, script=script, conversation_id=conversation)
        # Each exchange has 20 words, and 10 of the 60 are left to the answer.
        assert ended["left_out"] == 2 * max(0, place - 1)
        assert ended["usage"]["input_tokens"] == 15 + 20 * min(1, place)
    failed = await admin.submit(" ".join(["word"] * 30), model=SMALL, conversation_id=conversation, window="fail")
    ended = await admin.ended(failed["generation_id"])
    assert (ended["status"], ended["reason"]) == ("failed", "context_length_exceeded")
    assert len(await admin.messages(conversation)) == 12, "all of it can still be read"


async def test_a_summary_stands_for_what_there_is_no_room_for(parley: Up, admin: Client) -> None:
    words = " ".join(["word"] * 15)
    ask = {"model": SMALL, "script": {"count": 5}, "window": "summarise"}
    conversation = (await said(admin, words, **ask))["conversation_id"]
    for _ in range(2):
        await said(admin, words, conversation_id=conversation, **ask)

    async def shown() -> Json:
        return await admin.get(f"/v1/conversations/{conversation}")

    whole = await eventually(shown, lambda found: found["summary"])
    assert len(whole["summary"].split()) == SMALL_WINDOW // 4
    assert len(whole["messages"]) == 6, "it is no message"
    ended = await said(admin, words, conversation_id=conversation, **ask)
    assert ended["left_out"] >= 2
    made = [one for one in await admin.events() if one["type"] == "conversation.summarised.v1"]
    assert made
    usage = await admin.get("/v1/usage", group_by="model")
    assert usage["groups"][0]["generations"] > 4, "it costs its tenant"
    parley.parley("rebuild", "all", "--check")


async def test_the_model_makes_a_title_unless_a_person_did(admin: Client) -> None:
    first = await said(admin, "one two three", model=SMALL)
    conversation = f"/v1/conversations/{first['conversation_id']}"

    async def title() -> str:
        return str((await admin.get(conversation))["title"])

    made = await eventually(title, lambda found: found != "one two three")
    assert made.startswith("the rain falls on a quiet town")
    assert len(made) <= 60
    second = await admin.submit("four five six", model=SMALL)
    path = f"/v1/conversations/{second['conversation_id']}"

    async def renamed() -> bool:
        # Not yet, while the projections do not know it.
        return (await admin.http.patch(path, json={"title": "Mine"})).is_success

    await eventually(renamed, bool)

    async def titled() -> int:
        return len(await admin.events(type="conversation.titled.v1"))

    await eventually(titled, lambda found: found == 2)
    assert (await admin.get(path))["title"] == "Mine"


async def test_a_fork_goes_on_by_itself(admin: Client) -> None:
    first = await said(admin, "one two", script={"tokens": ["three"]})
    conversation = first["conversation_id"]
    second = await said(admin, "four", conversation_id=conversation, script={"tokens": ["five"]})
    forked = await admin.http.post(
        f"/v1/conversations/{conversation}/fork", json={"message_id": first["id"], "title": "Another"}
    )
    assert forked.status_code == 201, forked.text
    fork = forked.json()["conversation_id"]
    begun = await admin.get(f"/v1/conversations/{fork}")
    assert (begun["title"], begun["forked_from"], begun["state"]) == ("Another", conversation, "active")
    assert [message["content"] for message in begun["messages"]] == ["one two", "three"]
    went_on = await said(admin, "six", conversation_id=fork, script={"tokens": ["seven"]})
    assert (went_on["conversation_id"], went_on["usage"]["input_tokens"]) == (fork, 4), "it knows what was said"
    assert [message["content"] for message in await admin.messages(fork)] == ["one two", "three", "six", "seven"]
    assert [message["content"] for message in await admin.messages(conversation)] == [
        "one two",
        "three",
        "four",
        "five",
    ]
    # A fork of the fork, at a message of a person that both had before; and what is not on its way is not there.
    question = begun["messages"][0]["id"]
    again = await admin.http.post(f"/v1/conversations/{fork}/fork", json={"message_id": question})
    third = again.json()["conversation_id"]
    assert [message["content"] for message in await admin.messages(third)] == ["one two"]
    answered = await admin.submit(conversation_id=third, parent_message_id=question, script={"tokens": ["2"]})
    assert (await admin.ended(answered["generation_id"]))["conversation_id"] == third
    assert [message["content"] for message in await admin.messages(third)] == ["one two", "2"]
    elsewhere = {"message_id": second["id"]}
    assert await refused(admin, f"/v1/conversations/{fork}/fork", elsewhere) == (404, "not-found")


async def test_what_is_erased_is_erased_in_its_forks_and_what_was_said_there_stays(
    parley: Up, callers: Callers
) -> None:
    admin = await callers.admin()
    canary = Canary(f"canary{secrets.token_hex(16)}")
    ask = {"model": SMALL, "window": "summarise"}
    script = {"tokens": ["of ", canary.word, *[" word"] * 12]}
    conversation = (await said(admin, f"sing of {canary.word} " + "la " * 10, script=script, **ask))["conversation_id"]
    last = await said(admin, "and on " + "la " * 20, script=script, conversation_id=conversation, **ask)
    fork = (await admin.http.post(f"/v1/conversations/{conversation}/fork", json={})).json()["conversation_id"]
    await said(admin, "go on", conversation_id=fork, script={"tokens": ["its own"]})
    assert (await admin.http.post(f"/v1/conversations/{conversation}/end")).json()["state"] == "ended"
    await eventually(lambda: admin.get(f"/v1/conversations/{conversation}"), lambda found: found["summary"])
    assert (await admin.http.post(f"/v1/conversations/{conversation}/erase")).status_code == 204
    found = [one async for one in in_postgres(parley, canary)] + [str(one) for one in in_files(parley, canary)]
    assert [*found, *[one async for one in in_redis(parley, canary)]] == []
    whole = await admin.get(f"/v1/conversations/{fork}")
    assert [message["erased"] for message in whole["messages"]] == [True, True, True, True, False, False]
    assert whole["messages"][-1]["content"] == "its own"
    assert (await admin.get(f"/v1/conversations/{conversation}"))["summary"] is None
    again = await said(admin, "two words", conversation_id=fork)
    assert again["usage"]["input_tokens"] == 6, "it knows what was said in it, and nothing of before"
    assert canary.word not in json.dumps([whole, await admin.events()])
    assert last["left_out"] == 0
    parley.parley("rebuild", "all", "--check")


async def test_a_conversation_that_rests_takes_no_prompts_until_it_is_resumed(admin: Client) -> None:
    conversations = [(await said(admin, "one"))["conversation_id"] for _ in range(3)]
    for conversation in conversations:
        for _ in range(2):
            suspended = await admin.http.post(f"/v1/conversations/{conversation}/suspend")
            assert (suspended.status_code, suspended.json()["state"]) == (200, "suspended")
    answer = await admin.post_prompt("two", conversation_id=conversations[0])
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:parley:problem:conversation-suspended")
    assert (await admin.get(f"/v1/conversations/{conversations[0]}"))["state"] == "suspended"
    resumed = await admin.http.post("/v1/conversations/resume", json={"conversation_ids": conversations[:2]})
    assert (resumed.status_code, resumed.json()["conversation_ids"]) == (200, conversations[:2])
    resumed = await admin.http.post(f"/v1/conversations/{conversations[2]}/resume")
    assert resumed.json()["state"] == "active"
    for conversation in conversations:
        assert (await said(admin, "two", conversation_id=conversation))["conversation_id"] == conversation
    assert len(await admin.events(type="conversation.suspended.v1")) == 3
    assert len(await admin.events(type="conversation.resumed.v1")) == 3


async def test_an_ended_conversation_keeps_a_summary_and_takes_no_prompts(admin: Client) -> None:
    first = await said(admin, "one two three", model=SMALL)
    conversation = first["conversation_id"]
    for _ in range(2):
        ended = await admin.http.post(f"/v1/conversations/{conversation}/end")
        assert (ended.status_code, ended.json()["state"]) == (200, "ended")
    answer = await admin.post_prompt("four", parent_message_id=first["id"])
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:parley:problem:conversation-ended")
    for action in ("resume", "suspend"):
        assert await refused(admin, f"/v1/conversations/{conversation}/{action}") == (409, "conversation-ended")
    whole = await eventually(
        lambda: admin.get(f"/v1/conversations/{conversation}"), lambda found: found["summary"] is not None
    )
    assert whole["state"] == "ended"
    assert len(await admin.events(type="conversation.ended.v1")) == 1
    fork = (await admin.http.post(f"/v1/conversations/{conversation}/fork", json={})).json()["conversation_id"]
    assert (await said(admin, "four", conversation_id=fork))["status"] == "completed"
