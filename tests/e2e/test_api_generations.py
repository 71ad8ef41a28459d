"""Generations over HTTP: accepted once, cancelled, followed and picked up again from any cursor."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import pytest

from tests.e2e.client import Answer, Client, Json, eventually
from tests.e2e.conftest import SLOTS, Callers

pytestmark = pytest.mark.timeout(120)

# Deltas that break whoever cuts text at bytes, lines or words.
TOKENS = [f"{place}é\u0301 \u2028🌧\n" if place % 3 else f" data: {place}\r\n\n" for place in range(1, 31)]
ENDLESS = {"count": 100_000, "delay_s": 0.02}


async def running(client: Client, generation_id: str) -> Json:
    return await eventually(lambda: client.generation(generation_id), lambda found: found["status"] == "running")


async def terminal_events(client: Client, generation_id: str) -> list[str]:
    """Types of the terminal events that the record has of a generation."""
    told = await eventually(
        lambda: client.events(subject=f"generation:{generation_id}"),
        lambda found: any("conversation_id" in one["data"] and "usage" in one["data"] for one in found),
    )
    return [one["type"] for one in told if "usage" in one["data"] and one["type"] != "attempt.lost.v2"]


async def test_the_202_says_where_to_go_on_and_the_generation_is_there_at_once(admin: Client) -> None:
    response = await admin.post_prompt("hello", metadata={"ticket": "4711"}, parameters={"max_tokens": 5, "seed": 3})
    assert response.status_code == 202
    accepted = response.json()
    assert response.headers["location"] == accepted["generation_url"]
    assert accepted["status"] == "queued"
    assert accepted["message_id"] == accepted["generation_id"]
    found = await admin.get(response.headers["location"])
    assert found["id"] == accepted["generation_id"]
    ended = await admin.ended(accepted["generation_id"])
    assert ended["metadata"] == {"ticket": "4711"}
    assert ended["parameters"]["max_tokens"] == 5
    assert (ended["status"], ended["finish_reason"], ended["attempt"]) == ("completed", "length", 1)
    assert ended["usage"] == {
        "input_tokens": 1,
        "output_tokens": 5,
        "source": "provider",
        "cached_input_tokens": 0,
        "reasoning_tokens": 0,
        "cost_usd": None,
    }


async def test_twenty_equal_requests_at_once_are_one_generation(admin: Client) -> None:
    responses = await asyncio.gather(
        *(admin.post_prompt("once", idempotency_key="order 66", script={"delay_s": 0.01}) for _ in range(20))
    )
    assert {response.status_code for response in responses} == {202}
    (accepted,) = {response.text for response in responses}
    assert accepted
    generation_id = responses[0].json()["generation_id"]
    await admin.ended(generation_id)
    again = await admin.post_prompt("once", idempotency_key="order 66", script={"delay_s": 0.01})
    assert again.text == accepted
    other = await admin.post_prompt("twice", idempotency_key="order 66", script={"delay_s": 0.01})
    assert other.status_code == 409
    assert other.json()["type"] == "urn:parley:problem:idempotency-key-reused"
    # Whatever is published after this prompt stands behind all that the requests above put on the bus.
    later = await admin.submit("later")
    await admin.ended(later["generation_id"])
    submitted = await admin.events(type="prompt.submit.v3")
    assert [one["data"]["generation_id"] for one in submitted] == [generation_id, later["generation_id"]]
    assert await terminal_events(admin, generation_id) == ["generation.completed.v3"]
    assert len((await admin.get("/v1/conversations"))["conversations"]) == 2


async def test_an_idempotency_key_is_its_tenants_own(admin: Client, callers: Callers) -> None:
    other = await callers.admin()
    mine = await admin.submit("a", idempotency_key="same")
    theirs = await other.submit("b", idempotency_key="same")
    assert mine["generation_id"] != theirs["generation_id"]


async def test_cancelling_a_running_generation_keeps_what_was_said(admin: Client) -> None:
    accepted = await admin.submit("talk", script=ENDLESS)
    answer = Answer()
    cancelled_at = 0.0
    async with aclosing(admin.stream(accepted["generation_id"])) as stream:
        async for event in stream:
            answer.take(event)
            if answer.seq >= 5 and not cancelled_at:
                cancelled_at = time.monotonic()
                await admin.cancel(accepted["generation_id"])
    assert time.monotonic() - cancelled_at < 5
    assert answer.told[-1] == "cancelled"
    ended = await admin.ended(accepted["generation_id"])
    assert ended["status"] == "cancelled"
    assert ended["content"] == answer.text
    assert ended["content"].startswith("the rain falls on a")
    assert ended["usage"]["source"] == "estimated"
    assert ended["usage"]["output_tokens"] == answer.seq
    messages = await admin.messages(accepted["conversation_id"])
    assert (messages[-1]["content"], messages[-1]["status"]) == (answer.text, "cancelled")
    # It goes on after what was said.
    more = await admin.submit("go on", conversation_id=accepted["conversation_id"])
    said = 1 + len(answer.text.split()) + 2
    assert (await admin.ended(more["generation_id"]))["usage"]["input_tokens"] == said


async def test_cancelling_behind_a_full_pool_waits_for_nobody(admin: Client) -> None:
    filling = [await admin.submit("fill", script=ENDLESS) for _ in range(SLOTS)]
    try:
        for one in filling:
            await running(admin, one["generation_id"])
        queued = await admin.submit("wait")
        async with asyncio.timeout(5):
            following = asyncio.create_task(admin.follow(queued["generation_id"]))
            await admin.cancel(queued["generation_id"])
            answer = await following
        assert (answer.text, answer.told[-1]) == ("", "cancelled")
    finally:
        # Whatever came of it: other tests have the same pool.
        for one in filling:
            await admin.cancel(one["generation_id"])
    for one in filling:
        assert (await admin.ended(one["generation_id"]))["status"] == "cancelled"
    # The pool is free again, and the prompt that was cancelled in the queue is dropped from it.
    assert (await admin.ended((await admin.submit("next"))["generation_id"]))["status"] == "completed"
    ended = await admin.generation(queued["generation_id"])
    assert (ended["status"], ended["attempt"], ended["started_at"]) == ("cancelled", 0, None)
    assert await terminal_events(admin, queued["generation_id"]) == ["generation.cancelled.v3"]


async def test_cancelling_what_has_ended_changes_nothing(admin: Client) -> None:
    accepted = await admin.submit("short")
    ended = await admin.ended(accepted["generation_id"])
    await admin.cancel(accepted["generation_id"])
    await admin.cancel(accepted["generation_id"])
    await eventually(
        lambda: admin.events(type="generation.cancel.v1", subject=f"generation:{accepted['generation_id']}"),
        lambda found: len(found) == 2,
    )
    later = await admin.submit("later")
    await admin.ended(later["generation_id"])
    assert await admin.generation(accepted["generation_id"]) == ended
    assert await terminal_events(admin, accepted["generation_id"]) == ["generation.completed.v3"]


async def test_a_client_that_goes_away_stops_nothing(admin: Client) -> None:
    accepted = await admin.submit("talk", script={"tokens": TOKENS, "delay_s": 0.02})
    answer = Answer()
    async with aclosing(admin.stream(accepted["generation_id"])) as stream:
        async for event in stream:
            answer.take(event)
            if answer.seq >= 3:
                break
    assert not answer.ended
    ended = await admin.ended(accepted["generation_id"])
    assert (ended["status"], ended["content"]) == ("completed", "".join(TOKENS))
    await admin.follow(accepted["generation_id"], answer)
    assert answer.text == ended["content"]


@pytest.mark.parametrize("by_header", [True, False], ids=["Last-Event-ID", "after"])
async def test_a_finished_answer_is_picked_up_from_every_cursor(admin: Client, by_header: bool) -> None:
    accepted = await admin.submit("talk", script={"tokens": TOKENS})
    stored = (await admin.ended(accepted["generation_id"]))["content"]
    assert stored == "".join(TOKENS)
    whole = await admin.follow(accepted["generation_id"])
    assert (whole.text, whole.told[0], whole.told[-1]) == (stored, "started", "completed")
    for seen in range(len(TOKENS) + 1):
        answer = Answer("".join(TOKENS[:seen]), f"1-{seen}", attempt=1, seq=seen)
        await admin.follow(accepted["generation_id"], answer, by_header=by_header)
        assert answer.text == stored
        assert set(answer.told) <= {"token", "completed"}
    # Cursors that nobody was given: before everything, and ahead of it.
    assert (await admin.follow(accepted["generation_id"], Answer(cursor="0-0"), by_header=by_header)).text == stored
    ahead = Answer(stored, "1-99", attempt=1, seq=99)
    assert (await admin.follow(accepted["generation_id"], ahead, by_header=by_header)).told == ["completed"]


async def test_a_running_answer_is_picked_up_from_every_cursor(admin: Client) -> None:
    accepted = await admin.submit("talk", script={"tokens": TOKENS, "delay_s": 0.04})
    await running(admin, accepted["generation_id"])
    # At once, so that most cursors are ahead of what is known, and wait.
    answers = [Answer("".join(TOKENS[:seen]), f"1-{seen}", attempt=1, seq=seen) for seen in range(len(TOKENS) + 1)]
    await asyncio.gather(*(admin.follow(accepted["generation_id"], answer) for answer in answers))
    stored = (await admin.ended(accepted["generation_id"]))["content"]
    assert stored == "".join(TOKENS)
    for answer in answers:
        assert answer.text == stored
        assert set(answer.told) <= {"token", "completed"}


async def test_an_attempt_that_breaks_off_is_made_again_and_followers_begin_anew(admin: Client) -> None:
    accepted = await admin.submit(
        "talk",
        script=[
            {"tokens": ["wrong ", "words"], "delay_s": 0.1, "fail_after": 2},
            {"tokens": ["the ", "right ", "ones"], "delay_s": 0.05},
        ],
    )
    answer = await admin.follow(accepted["generation_id"])
    assert "restarted" in answer.told
    assert answer.text == "the right ones"
    ended = await admin.ended(accepted["generation_id"])
    assert (ended["status"], ended["attempt"], ended["content"]) == ("completed", 2, "the right ones")

    async def used() -> Json:
        group: Json = (await admin.get("/v1/usage", group_by="model"))["groups"][0]
        return group

    # The lost attempt's usage travels by the outbox, and may arrive after the answer's end.
    usage = await eventually(used, lambda usage: usage["attempts"] == 2)
    assert (usage["generations"], usage["estimated_attempts"]) == (1, 1)
    # A cursor of the attempt that was lost begins anew, too.
    late = await admin.follow(accepted["generation_id"], Answer("wrong words", "1-2", attempt=1, seq=2))
    assert late.text == "the right ones"
    assert late.told[0] == "restarted"


async def test_what_can_never_succeed_fails_at_once_and_says_why(admin: Client) -> None:
    accepted = await admin.submit("talk", script={"fail_after": 1, "fail_kind": "refused", "fail_reason": "too_rude"})
    answer = await admin.follow(accepted["generation_id"])
    assert (answer.text, answer.told[-1], answer.detail["reason"]) == ("the", "failed", "too_rude")
    ended = await admin.ended(accepted["generation_id"])
    assert (ended["status"], ended["attempt"], ended["reason"], ended["content"]) == ("failed", 1, "too_rude", "the")


async def test_what_breaks_off_every_time_has_failed_in_the_end(admin: Client) -> None:
    accepted = await admin.submit("talk", script={"fail_after": 1})
    answer = await admin.follow(accepted["generation_id"])
    assert (answer.text, answer.told[-1], answer.detail["reason"]) == ("", "failed", "attempts_exhausted")
    assert await terminal_events(admin, accepted["generation_id"]) == ["generation.failed.v3"]
    lost = await eventually(
        lambda: admin.events(type="attempt.lost.v2", subject=f"generation:{accepted['generation_id']}"),
        lambda found: len(found) == 3,
    )
    assert [one["data"]["attempt"] for one in lost] == [1, 2, 3]
