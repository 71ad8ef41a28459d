"""Answers that have to fit a schema: asked for again where they don't, counted each time, and failed honestly."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from event_schemas.chat import ResponseFormat
from event_schemas.codec import decode
from event_schemas.generation import (
    AttemptLost,
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
    GenerationRestarted,
    SubmitPrompt,
)
from event_schemas.payload import Plain
from tests.conftest import TestDatabase, ValkeyServer
from tests.integration.prompts import scripted
from tests.integration.worker_world import WorkerWorld

POINT = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
FITS = {"tokens": ["Sure: ", '{"x"', ": 12}", " Anything else?"]}
WRONG = {"tokens": ['{"x": ', '"one"}']}
PROSE = {"tokens": ["I would ", "rather not."]}
SLOW = {"tokens": ["{"] * 4000, "delay_s": 0.02}


@pytest.fixture
async def world(database: TestDatabase, valkey_server: ValkeyServer) -> AsyncIterator[WorkerWorld]:
    async with WorkerWorld(database, valkey_server.url) as made:
        yield made


def shaped(*scripts: dict[str, Any], repairs: int = 2, schema: dict[str, Any] = POINT) -> SubmitPrompt:
    prompt = scripted(*scripts)
    assert isinstance(prompt.content, Plain)
    wanted = ResponseFormat(json_schema=schema).model_dump()
    content = Plain(plain=prompt.content.plain | {"response_format": wanted})
    return prompt.model_copy(update={"content": content, "repairs": repairs})


async def void(world: WorkerWorld) -> list[AttemptLost]:
    """Attempts that stand in the outbox as void."""
    rows = await world.owner.fetch("SELECT envelope FROM control.outbox ORDER BY id")
    events = [decode(row["envelope"]).data for row in rows]
    return [event for event in events if isinstance(event, AttemptLost)]


async def test_an_answer_in_words_has_the_json_that_fits(world: WorkerWorld) -> None:
    await world.worker("a")
    prompt = shaped(FITS)
    await world.submit(prompt)
    ended = await world.ended(prompt)
    assert isinstance(ended.data, GenerationCompleted)
    answer = world.answer(ended)
    assert ended.data.json_span == answer.json_span
    assert answer.json_span is not None
    assert answer.text[slice(*answer.json_span)] == '{"x": 12}'
    # It was told of the schema, beside the three words of its prompt.
    assert ended.data.usage.input_tokens > 20
    assert await void(world) == []


async def test_what_does_not_fit_is_asked_for_again_and_every_attempt_is_counted(world: WorkerWorld) -> None:
    await world.worker("a", max_attempts=1)  # repairs are no attempts that were lost
    prompt = shaped(PROSE, WRONG, FITS)
    await world.submit(prompt)
    ended = await world.ended(prompt)
    assert isinstance(ended.data, GenerationCompleted)
    assert (ended.data.attempt, world.answer(ended).text) == (3, "".join(FITS["tokens"]))
    first, second = await void(world)
    assert [(one.attempt, one.reason, one.usage.source) for one in (first, second)] == [
        (1, "answer_does_not_fit", "provider"),
        (2, "answer_does_not_fit", "provider"),
    ]
    assert (first.usage.output_tokens, second.usage.output_tokens) == (2, 2)
    # The model sees what it wrote, and the validator's words.
    assert first.usage.input_tokens < second.usage.input_tokens < ended.data.usage.input_tokens + 10
    said = [event.data for event in await world.events(prompt)]
    assert 3 in [one.attempt for one in said if isinstance(one, GenerationRestarted)]
    async with world.reader() as reader:
        frames = await reader.backlog(world.tenant_id, prompt.generation_id)
    assert [frame.attempt for frame in frames if frame.kind.value == "started"] == [1, 2, 3]


@pytest.mark.parametrize("repairs", [0, 1])
async def test_what_never_fits_fails_with_what_was_written(world: WorkerWorld, repairs: int) -> None:
    await world.worker("a")
    prompt = shaped(WRONG, repairs=repairs)
    await world.submit(prompt)
    ended = await world.ended(prompt)
    assert isinstance(ended.data, GenerationFailed)
    assert (ended.data.reason, ended.data.attempt) == ("answer_does_not_fit", repairs + 1)
    assert (ended.data.usage.source, ended.data.usage.output_tokens) == ("provider", 2)
    answer = world.answer(ended)
    assert (answer.text, answer.json_span) == ('{"x": "one"}', None)
    assert answer.misfit is not None
    assert (answer.misfit.path, answer.misfit.keyword) == ("/x", "type")
    assert "one" not in ended.data.detail
    assert len(await void(world)) == repairs


async def test_an_answer_that_was_cut_off_is_said_to_be_and_not_asked_for_again(world: WorkerWorld) -> None:
    await world.worker("a")
    prompt = shaped(FITS)
    cut = prompt.model_copy(update={"parameters": prompt.parameters.model_copy(update={"max_tokens": 2})})
    await world.submit(cut)
    ended = await world.ended(cut)
    assert isinstance(ended.data, GenerationFailed)
    assert (ended.data.reason, ended.data.attempt) == ("answer_cut_off", 1)
    assert world.answer(ended).text == 'Sure: {"x"'


@pytest.mark.parametrize("signals", [True, False])
async def test_a_repair_is_cancelled_like_any_attempt(world: WorkerWorld, signals: bool) -> None:
    await world.worker("a", signals=signals)
    prompt = shaped(WRONG, SLOW)
    await world.submit(prompt)

    async def repairs() -> bool:
        return await world.tokens(prompt) > 3

    await world.until(repairs, "the second attempt writes")
    await world.cancel(prompt)
    ended = await world.ended(prompt)
    assert isinstance(ended.data, GenerationCancelled)
    assert ended.data.attempt == 2
    assert [one.attempt for one in await void(world)] == [1]


async def test_a_worker_that_is_lost_amid_repairs_costs_an_attempt_and_its_repairs_stay_counted(
    world: WorkerWorld,
) -> None:
    lost = await world.worker("a", max_attempts=2)
    prompt = shaped(WRONG, SLOW, WRONG, FITS, repairs=1)
    await world.submit(prompt)

    async def repairs() -> bool:
        return await world.tokens(prompt) > 3

    await world.until(repairs, "the second attempt writes")
    await lost.vanish()
    await world.worker("b", max_attempts=2)
    ended = await world.ended(prompt)
    # Its one repair was made, so the third attempt, which is the second by max_attempts, is the last.
    assert isinstance(ended.data, GenerationFailed)
    assert (ended.data.reason, ended.data.attempt) == ("answer_does_not_fit", 3)
    assert [(one.attempt, one.reason, one.usage.source) for one in await void(world)] == [
        (1, "answer_does_not_fit", "provider"),
        (2, None, "estimated"),
    ]


async def test_a_check_that_takes_too_long_fails_the_answer_alone(
    world: WorkerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.checking.DEADLINE_S", 1.0)
    await world.worker("a")
    slow = shaped({"tokens": ['"' + "a" * 60 + '!"']}, schema={"type": "string", "pattern": "^(a|a)*$"})
    other = scripted({"count": 3})
    await world.submit(slow)
    await world.submit(other)
    assert isinstance((await world.ended(other)).data, GenerationCompleted)
    ended = await world.ended(slow)
    assert isinstance(ended.data, GenerationFailed)
    assert (ended.data.reason, ended.data.attempt) == ("answer_does_not_fit", 1)
    assert "patterns" in ended.data.detail


async def test_the_scratchpad_is_shown_to_nobody_and_kept_for_the_record(world: WorkerWorld) -> None:
    await world.worker("a")
    tokens = ["<scr", "atchpad>12 is", " even</scratch", "pad>", '{"x":', " 12}"]
    prompt = shaped({"tokens": tokens}).model_copy(update={"scratchpad": True})
    await world.submit(prompt)
    ended = await world.ended(prompt)
    assert isinstance(ended.data, GenerationCompleted)
    answer = world.answer(ended)
    assert (answer.text, answer.scratchpad, answer.json_span) == ('{"x": 12}', "12 is even", (0, 9))
    assert ended.data.deltas == 2
    assert ended.data.usage.output_tokens == len(tokens)
    async with world.reader() as reader:
        frames = await reader.backlog(world.tenant_id, prompt.generation_id)
    assert "".join(str(delta) for frame in frames for delta in frame.deltas) == '{"x": 12}'
    follow_up = scripted({"count": 1}, conversation=prompt.conversation_id, parent=prompt.generation_id)
    await world.submit(follow_up)
    told = await world.ended(follow_up)
    assert isinstance(told.data, GenerationCompleted)
    assert told.data.usage.input_tokens == 3 + 2 + 3
