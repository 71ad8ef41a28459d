"""Conversations over HTTP: a tree of messages, chains of prompts, names, and the end of them."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from tests.e2e.client import Client, eventually

pytestmark = pytest.mark.timeout(120)


async def test_a_conversation_is_a_tree(admin: Client) -> None:
    first = await admin.submit("one", script={"tokens": ["first"]})
    conversation = first["conversation_id"]
    # Goes on after the newest message, which is the answer.
    second = await admin.submit("two", conversation_id=conversation, script={"tokens": ["second"]})
    assert second["parent_message_id"] == first["message_id"]
    # An edit of the second prompt names its parent.
    edited = await admin.submit(
        "two, edited", parent_message_id=first["message_id"], script={"tokens": ["second of the edit"]}
    )
    # A regeneration names the user's message, and writes none.
    again = await admin.submit(parent_message_id=second["input_message_ids"][0], script={"tokens": ["second again"]})
    assert again["input_message_ids"] == []
    # An explicit null begins anew beside the first message.
    anew = await admin.submit(
        "one, edited", conversation_id=conversation, parent_message_id=None, script={"tokens": ["first of the edit"]}
    )
    assert anew["parent_message_id"] is None
    prompts = (first, second, edited, again, anew)
    assert {prompt["conversation_id"] for prompt in prompts} == {conversation}
    for prompt in prompts:
        assert (await admin.ended(prompt["generation_id"]))["status"] == "completed"
    messages = {message["id"]: message for message in await admin.messages(conversation)}

    def path(message_id: str | None) -> list[str]:
        if message_id is None:
            return []
        message = messages[message_id]
        return [*path(message["parent_message_id"]), message["content"]]

    assert [path(prompt["message_id"]) for prompt in prompts] == [
        ["one", "first"],
        ["one", "first", "two", "second"],
        ["one", "first", "two, edited", "second of the edit"],
        ["one", "first", "two", "second again"],
        ["one, edited", "first of the edit"],
    ]
    assert len(messages) == 9
    assert {message["role"] for message in messages.values()} == {"user", "assistant"}


async def test_follow_ups_sent_without_waiting_are_answered_in_order_with_the_whole_history(admin: Client) -> None:
    chain = [await admin.submit("one two three", script={"tokens": ["a ", "b"], "delay_s": 0.3})]
    for place in range(1, 6):
        chain.append(
            await admin.submit(
                "and", parent_message_id=chain[-1]["message_id"], script={"tokens": [f"answer {place}"], "delay_s": 0.1}
            )
        )
    ended = [await admin.ended(prompt["generation_id"]) for prompt in chain]
    assert [one["status"] for one in ended] == ["completed"] * 6
    for earlier, later in itertools.pairwise(ended):
        assert earlier["ended_at"] <= later["started_at"]
    # The scripted backend counts the words it is given: each history holds all prompts and answers before it.
    assert [one["usage"]["input_tokens"] for one in ended] == [3, 6, 9, 12, 15, 18]
    contents = [message["content"] for message in await admin.messages(chain[0]["conversation_id"])]
    assert contents == ["one two three", "a b", *(text for place in range(1, 6) for text in ("and", f"answer {place}"))]


async def test_the_newest_system_message_is_what_counts(admin: Client) -> None:
    first = await admin.submit("one", system="four words of system", script={"tokens": ["a"]})
    second = await admin.submit("two", system="two words", parent_message_id=first["message_id"])
    assert (await admin.ended(first["generation_id"]))["usage"]["input_tokens"] == 5
    assert (await admin.ended(second["generation_id"]))["usage"]["input_tokens"] == 2 + 1 + 1 + 1


async def test_a_conversation_is_named_found_and_listed_page_by_page(admin: Client) -> None:
    prompts = [await admin.submit(f"prompt {place}") for place in range(5)]
    for prompt in prompts:
        await admin.ended(prompt["generation_id"])
    named = prompts[2]["conversation_id"]
    response = await admin.http.patch(f"/v1/conversations/{named}", json={"title": "The colour of the sky"})
    assert response.status_code == 200
    assert response.json() == {"id": named, "title": "The colour of the sky"}
    assert (await admin.get(f"/v1/conversations/{named}"))["title"] == "The colour of the sky"
    found = (await admin.get("/v1/conversations", search="COLOUR"))["conversations"]
    assert [one["id"] for one in found] == [named]
    listed: list[str] = []
    cursor: str | None = None
    while True:
        page = await admin.get("/v1/conversations", limit=2, **({"cursor": cursor} if cursor else {}))
        assert len(page["conversations"]) <= 2
        listed += [one["id"] for one in page["conversations"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert sorted(listed) == sorted(prompt["conversation_id"] for prompt in prompts)


async def test_a_deleted_conversation_is_gone_everywhere(admin: Client) -> None:
    kept = await admin.submit("kept")
    gone = await admin.submit("gone")
    await admin.ended(gone["generation_id"])
    running = await admin.submit(
        "runs on", parent_message_id=gone["message_id"], script={"count": 10_000, "delay_s": 0.05}
    )
    await eventually(lambda: admin.generation(running["generation_id"]), lambda found: found["status"] == "running")
    conversation = gone["conversation_id"]
    response = await admin.http.delete(f"/v1/conversations/{conversation}")
    assert response.status_code == 204
    assert response.content == b""
    for request in (
        admin.http.get(f"/v1/conversations/{conversation}"),
        admin.http.patch(f"/v1/conversations/{conversation}", json={"title": "back"}),
        admin.http.delete(f"/v1/conversations/{conversation}"),
        admin.post_prompt("more", conversation_id=conversation),
        admin.post_prompt("more", parent_message_id=gone["message_id"]),
    ):
        assert (await request).status_code == 404
    listed = (await admin.get("/v1/conversations"))["conversations"]
    assert [one["id"] for one in listed] == [kept["conversation_id"]]
    # What ran in it is cancelled, and what was said there is nowhere to be read.
    ends = await eventually(
        lambda: admin.events(type="generation.cancelled.v3", subject=f"generation:{running['generation_id']}"), len
    )
    assert len(ends) == 1
    for prompt in (gone, running):
        for path in (prompt["generation_url"], prompt["stream_url"]):
            assert (await admin.http.get(path)).status_code == 404


async def test_conversations_run_beside_one_another_and_one_runs_one_at_a_time(admin: Client) -> None:
    slow = {"count": 10, "delay_s": 0.05}
    first = await admin.submit("root")
    await admin.ended(first["generation_id"])
    siblings = [await admin.submit("x", parent_message_id=first["message_id"], script=slow) for _ in range(3)]
    ended = await asyncio.gather(*(admin.ended(one["generation_id"]) for one in siblings))
    spans = sorted((one["started_at"], one["ended_at"]) for one in ended)
    for (_, end), (begin, _) in itertools.pairwise(spans):
        assert end <= begin
    others = [await admin.submit("x", script=slow) for _ in range(3)]
    ended = await asyncio.gather(*(admin.ended(one["generation_id"]) for one in others))
    assert max(one["started_at"] for one in ended) < min(one["ended_at"] for one in ended)
