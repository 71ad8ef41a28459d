"""Workers by the rules of the claim."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from backplane.ports.token_stream import Kind
from event_schemas import topics
from event_schemas.chat import text_of
from event_schemas.codec import decode, encode
from event_schemas.generation import (
    Fallback,
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
    TokensEmitted,
)
from tests.conftest import TestDatabase, ValkeyServer
from tests.integration.prompts import SPARE, scripted
from tests.integration.worker_world import COMMANDS, WorkerWorld
from workers.claims import Claims

SLOW = {"count": 400, "delay_s": 0.02}


@pytest.fixture
async def world(database: TestDatabase, valkey_server: ValkeyServer) -> AsyncIterator[WorkerWorld]:
    async with WorkerWorld(database, valkey_server.url) as made:
        yield made


async def test_a_prompt_becomes_started_tokens_completed_and_a_stream_of_the_same(world: WorkerWorld) -> None:
    await world.worker("a")
    prompt = scripted({"tokens": ["Hello", ", ", "wor\0ld"], "delay_s": 0.06})
    command = await world.submit(prompt)
    ended = await world.ended(prompt)
    assert isinstance(ended.data, GenerationCompleted)
    assert world.answer(ended).text == "Hello, wor\ufffdld"
    assert world.answer(ended).delta_lengths == (5, 2, 6)
    assert (ended.data.usage.input_tokens, ended.data.usage.output_tokens, ended.data.attempt) == (3, 3, 1)
    events = await world.events(prompt)
    assert {event.type for event in events} == {"generation.started.v1", "tokens.emitted.v3", ended.type}
    assert {(event.correlationid, event.causationid) for event in events} == {(command.id, command.id)}
    emitted = [event.data for event in events if isinstance(event.data, TokensEmitted)]
    seen = [
        delta for one in sorted(emitted, key=lambda one: one.first_seq) for delta in world.sealed.tokens(one).deltas
    ]
    assert "Hello, wor\ufffdld".startswith(text_of(seen))

    async def shown() -> bool:
        async with world.reader() as reader:
            frames = await reader.backlog(world.tenant_id, prompt.generation_id)
        return (
            frames[-1].kind is Kind.COMPLETED
            and text_of(delta for frame in frames for delta in frame.deltas) == "Hello, wor\ufffdld"
        )

    await world.until(shown, "the stream holds the answer and its end")


async def test_a_command_delivered_many_times_runs_once(world: WorkerWorld) -> None:
    await world.worker("a")
    await world.worker("b")
    prompt = scripted({"count": 20, "delay_s": 0.02})
    await world.submit(prompt, times=6)
    ended = await world.ended(prompt)
    assert isinstance(ended.data, GenerationCompleted)

    async def all_acked() -> bool:
        return sum(await world.bus.backlog(COMMANDS, topics.WORKERS)) == 0

    await world.until(all_acked, "every delivery is acked")
    assert [event.type for event in await world.events(prompt)].count("generation.started.v1") == 1


async def test_many_run_at_once_and_one_a_conversation(world: WorkerWorld) -> None:
    await world.worker("a", slots=4)
    first = scripted(SLOW)
    second = scripted({"count": 3}, conversation=first.conversation_id)
    others = [scripted({"count": 10, "delay_s": 0.02}) for _ in range(6)]
    await world.submit(first)

    async def running() -> bool:
        return bool(await world.events(first))

    await world.until(running, "the first of the conversation runs")
    for prompt in (second, *others):
        await world.submit(prompt)
    for prompt in others:
        assert isinstance((await world.ended(prompt)).data, GenerationCompleted)
    assert await world.events(second) == []
    await world.cancel(first)
    assert isinstance((await world.ended(first)).data, GenerationCancelled)
    assert isinstance((await world.ended(second)).data, GenerationCompleted)


async def test_a_follow_up_waits_for_its_parent_and_reads_what_it_answered(world: WorkerWorld) -> None:
    await world.worker("a")
    parent = scripted({"tokens": ["four", " words", " of", " answer"], "delay_s": 0.05})
    child = scripted({"count": 2}, conversation=parent.conversation_id, parent=parent.generation_id)
    await world.submit(child)
    await world.submit(parent)
    ended = await world.ended(child)
    assert isinstance(ended.data, GenerationCompleted)
    assert ended.data.usage.input_tokens == 3 + 4 + 3


async def test_a_lost_worker_costs_an_attempt_and_not_the_prompt(world: WorkerWorld) -> None:
    lost = await world.worker("a")
    prompt = scripted(SLOW, {"tokens": ["again"]})
    await world.submit(prompt)

    async def has_tokens() -> bool:
        return await world.tokens(prompt) > 3

    await world.until(has_tokens, "the first attempt writes")
    await lost.vanish()
    await world.worker("b")
    ended = await world.ended(prompt)
    assert isinstance(ended.data, GenerationCompleted)
    assert (ended.data.attempt, world.answer(ended).text) == (2, "again")
    assert "generation.restarted.v1" in {event.type for event in await world.events(prompt)}
    outbox = [decode(row["envelope"]) for row in await world.owner.fetch("SELECT envelope FROM control.outbox")]
    assert [(event.type, event.data.model_dump()["attempt"]) for event in outbox] == [("attempt.lost.v2", 1)]
    usage = outbox[0].data.model_dump()["usage"]
    assert usage["source"] == "estimated"
    assert usage["output_tokens"] > 3


async def test_a_claim_whose_answer_was_lost_is_not_kept_by_the_worker_that_knows_nothing_of_it(
    world: WorkerWorld,
) -> None:
    await world.worker("a")
    # What else it runs keeps its heartbeat going, which renews all leases in its name.
    other = scripted({"count": 4000, "delay_s": 0.02})
    await world.submit(other)

    async def runs() -> bool:
        return bool(await world.events(other))

    await world.until(runs, "the other one runs")
    prompt = scripted({"tokens": ["lost"]}, {"tokens": ["kept"]})
    await world.owner.execute(
        "INSERT INTO work.claims (generation_id, tenant_id, conversation_id, pool, attempt, worker, lease_until,"
        " message_ids) VALUES ($1, $2, $3, $4, 1, 'a', now() + interval '1 s', ARRAY[$1::uuid])",
        prompt.generation_id,
        world.tenant_id,
        prompt.conversation_id,
        prompt.pool,
    )
    await world.submit(prompt)
    ended = await world.ended(prompt)
    assert isinstance(ended.data, GenerationCompleted)
    assert (ended.data.attempt, world.answer(ended).text) == (2, "kept")


async def test_what_fails_for_a_reason_that_nobody_foresaw_is_tried_again(
    world: WorkerWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    faults = iter([RuntimeError("a secret"), ValueError("a secret")])
    ask = Claims.ask

    async def broken(*arguments: Any) -> Any:
        if (fault := next(faults, None)) is not None:
            raise fault
        return await ask(*arguments)

    monkeypatch.setattr(Claims, "ask", broken)
    await world.worker("a")
    prompt = scripted({"tokens": ["fine"]})
    await world.submit(prompt)
    ended = await world.ended(prompt)
    assert isinstance(ended.data, GenerationCompleted)
    assert ended.data.attempt == 1
    failed = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [vars(record)["cause"] for record in failed] == ["RuntimeError", "ValueError"]
    assert "a secret" not in caplog.text


async def test_a_fenced_worker_publishes_nothing_more(world: WorkerWorld) -> None:
    await world.worker("a")
    prompt = scripted(SLOW)
    await world.submit(prompt)

    async def running() -> bool:
        return bool(await world.events(prompt))

    await world.until(running, "it runs")
    await world.owner.execute("UPDATE work.claims SET worker = 'b', attempt = 2, lease_until = now() + interval '1 h'")

    # That nothing more comes can only be seen by waiting; a token would be due every 20 ms.
    async def silent() -> bool:
        before = await world.tokens(prompt)
        await asyncio.sleep(0.15)
        return await world.tokens(prompt) == before

    await world.until(silent, "the fenced worker stopped")
    assert await world.tokens(prompt) < SLOW["count"], "it wrote to its end as if nothing had happened"
    assert all("started" in event.type or "tokens" in event.type for event in await world.events(prompt))


async def test_an_engine_that_breaks_off_is_tried_again_and_then_given_up(world: WorkerWorld) -> None:
    await world.worker("a")
    recovers = scripted({"count": 5, "fail_after": 2}, {"tokens": ["fine"]})
    never = scripted({"count": 5, "fail_after": 1})
    refused = scripted({"count": 5, "fail_after": 0, "fail_kind": "refused", "fail_reason": "context_length_exceeded"})
    for prompt in (recovers, never, refused):
        await world.submit(prompt)
    ended = await world.ended(recovers)
    assert isinstance(ended.data, GenerationCompleted)
    assert (ended.data.attempt, world.answer(ended).text) == (2, "fine")
    gave_up = await world.ended(never)
    failed = gave_up.data
    assert isinstance(failed, GenerationFailed)
    assert (failed.reason, failed.attempt, world.answer(gave_up).text) == ("attempts_exhausted", 4, "")
    permanent = (await world.ended(refused)).data
    assert isinstance(permanent, GenerationFailed)
    assert (permanent.reason, permanent.attempt) == ("context_length_exceeded", 1)


@pytest.mark.parametrize("signals", [True, False], ids=["signalled", "by heartbeat"])
async def test_a_cancel_stops_what_runs_and_keeps_what_was_said(world: WorkerWorld, signals: bool) -> None:
    await world.worker("a", signals=signals)
    prompt = scripted(SLOW)
    await world.submit(prompt)

    async def has_tokens() -> bool:
        return await world.tokens(prompt) > 3

    await world.until(has_tokens, "it writes")
    await world.cancel(prompt)
    ended = await world.ended(prompt)
    assert isinstance(ended.data, GenerationCancelled)
    assert 3 < len(world.answer(ended).delta_lengths) < 400
    assert ended.data.usage.source == "estimated"


async def test_a_cancel_never_waits_behind_a_backlog(world: WorkerWorld) -> None:
    await world.worker("a", slots=1)
    first, queued = scripted(SLOW), scripted({"count": 3})
    await world.submit(first)

    async def running() -> bool:
        return bool(await world.events(first))

    await world.until(running, "the only slot is taken")
    await world.submit(queued)
    await world.cancel(queued)
    ended = (await world.ended(queued)).data
    assert isinstance(ended, GenerationCancelled)
    assert (ended.attempt, ended.usage.output_tokens) == (0, 0)
    await world.cancel(first)
    await world.ended(first)

    async def all_acked() -> bool:
        return sum(await world.bus.backlog(COMMANDS, topics.WORKERS)) == 0

    await world.until(all_acked, "the void command is acked")
    await world.ended(queued)


async def test_draining_finishes_what_runs_and_gives_back_what_cannot_finish(world: WorkerWorld) -> None:
    patient = await world.worker("a")
    short = scripted({"count": 10, "delay_s": 0.03})
    await world.submit(short)

    async def running() -> bool:
        return bool(await world.events(short))

    await world.until(running, "it runs")
    await patient.drain()
    ended = await world.ended(short)
    assert isinstance(ended.data, GenerationCompleted)
    assert ended.data.attempt == 1

    hasty = await world.worker("b", grace_s=0.0)
    long = scripted(SLOW, {"tokens": ["second"]})
    await world.submit(long)

    async def long_runs() -> bool:
        return bool(await world.events(long))

    await world.until(long_runs, "it runs")
    await hasty.drain()
    assert not [event for event in await world.events(long) if "completed" in event.type]
    await world.worker("c")
    ended = await world.ended(long)
    assert isinstance(ended.data, GenerationCompleted)
    assert ended.data.attempt == 2


async def test_poison_is_set_aside_with_its_reason_and_nothing_waits_behind_it(world: WorkerWorld) -> None:
    await world.worker("a", slots=1)
    await world.bus.publish(COMMANDS, b"\xff not json", partition=0)
    wrong = scripted()
    cancel = await world.submit(wrong)
    prompt = scripted()
    await world.submit(prompt)
    assert isinstance((await world.ended(prompt)).data, GenerationCompleted)
    assert isinstance((await world.ended(wrong)).data, GenerationCompleted)
    assert cancel.id

    async def dead() -> bool:
        return bool(await world.messages(topics.dead_letters(COMMANDS)))

    await world.until(dead, "the poison is a dead letter")
    letters = await world.messages(topics.dead_letters(COMMANDS))
    assert [(letter.payload, letter.properties["dead_letter_topic"]) for letter in letters] == [
        (b"\xff not json", COMMANDS)
    ]
    assert "not JSON" in letters[0].properties["dead_letter_reason"]


async def test_a_newer_version_stops_the_worker_and_is_kept(world: WorkerWorld) -> None:
    worker = await world.worker("a")
    newer = encode(await world.submit(scripted())).replace(b"prompt.submit.v3", b"prompt.submit.v4")
    await world.bus.publish(COMMANDS, newer)

    async def held_back() -> bool:
        return sum(await world.bus.backlog(COMMANDS, topics.WORKERS)) == 1

    await world.until(held_back, "only the newer one is left")
    await worker.drain()
    assert sum(await world.bus.backlog(COMMANDS, topics.WORKERS)) == 1
    assert await world.messages(topics.dead_letters(COMMANDS)) == []


async def test_an_ending_that_was_committed_and_not_published_is_published_again(world: WorkerWorld) -> None:
    prompt = scripted()
    lost = await world.worker("a")
    command = await world.submit(prompt)
    first = await world.ended(prompt)
    await lost.drain()
    await world.bus.publish(COMMANDS, encode(command))
    await world.worker("b")

    async def told_again() -> bool:
        said = [decode(message.payload) for message in await world.messages(topics.EVENTS)]
        return [event.id for event in said].count(first.id) == 2

    await world.until(told_again, "the same event, with the same id")
    assert len([event for event in await world.events(prompt) if "started" in event.type]) == 1


async def test_without_redis_generations_go_on(world: WorkerWorld, tmp_path: Path) -> None:
    await world.worker("a", redis_url=f"unix://{tmp_path}/nobody.sock")
    prompt = scripted({"count": 8, "delay_s": 0.02})
    await world.submit(prompt)
    ended = await world.ended(prompt)
    assert isinstance(ended.data, GenerationCompleted)
    assert len(world.answer(ended).delta_lengths) == 8


async def test_a_prompt_that_was_erased_meanwhile_has_failed_and_asked_nobody(world: WorkerWorld) -> None:
    prompt = scripted(fallbacks=(Fallback(pool=SPARE, model="scripted"),))
    await world.submit(prompt)
    await world.owner.execute("DELETE FROM control.data_keys")
    await world.worker("a")
    ended = (await world.ended(prompt)).data
    assert isinstance(ended, GenerationFailed)
    assert (ended.reason, ended.attempt, ended.content) == ("content_erased", 1, None)
    assert (ended.usage.input_tokens, ended.usage.output_tokens) == (0, 0)
    assert ended.detail == "what was written in its conversation was erased before it was answered"


async def test_a_data_key_that_does_not_open_says_why_and_is_tried_again(world: WorkerWorld) -> None:
    prompt = scripted()
    await world.submit(prompt)
    kept: bytes = await world.owner.fetchval("SELECT wrapped FROM control.data_keys")
    await world.owner.execute("UPDATE control.data_keys SET wrapped = set_byte(wrapped, 1, 0)")
    await world.worker("a", max_attempts=20)

    async def was_tried() -> bool:
        claim = await world.owner.fetchrow("SELECT attempt FROM work.claims")
        return claim is not None and claim["attempt"] >= 2

    await world.until(was_tried, "the worker tries again")
    await world.owner.execute("UPDATE control.data_keys SET wrapped = $1", kept)
    ended = await world.ended(prompt)
    assert isinstance(ended.data, GenerationCompleted)


async def test_a_prompt_that_is_not_kept_is_answered_and_its_key_is_gone_when_that_is_known(world: WorkerWorld) -> None:
    await world.worker("a")
    first = scripted({"tokens": ["said"]}, text="one two").model_copy(update={"keeps_content": False})
    second = scripted(conversation=first.conversation_id, parent=first.generation_id, text="three four five")
    second = second.model_copy(update={"keeps_content": False})
    for prompt in (first, second):
        await world.submit(prompt)
    assert world.answer(await world.ended(first)).text == "said"
    ended = (await world.ended(second)).data
    assert isinstance(ended, GenerationCompleted)
    assert ended.usage.input_tokens == 3, "the scripted backend counts words: it has no memory"
    assert await world.owner.fetchval("SELECT count(*) FROM control.data_keys") == 0
