"""The packaged model picks sources: whatever it thinks, it names what there is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from backplane.settings.answer_schemas import EXPRESSIBLE
from command_api.answer_schema import AnswerSchema
from tests.contract.inference.packaged import packaged_model as packaged_model
from tests.contract.inference.requests import answer, request
from workers.inference.llamacpp import LlamaCppBackend
from workers.sources import choosing

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]

THERE_IS = [
    ("weather", "forecasts of rain, wind and temperature"),
    ("football", "results of last week's matches"),
    ('the "Old" café · ☕', "what is cooked today"),
]
NAMES = [name for name, _ in THERE_IS]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(packaged_model: Path) -> AsyncIterator[LlamaCppBackend]:
    backend = LlamaCppBackend(packaged_model, slots=4, context_window=512)
    await backend.start(lambda doing, share: None)
    yield backend
    await backend.close()


@pytest.mark.parametrize("way", [way for way in EXPRESSIBLE if way != "instruction"])
async def test_every_engine_that_can_be_held_to_a_schema_can_be_held_to_this_one(way: str) -> None:
    wanted = choosing.answer_format(NAMES, 2)
    assert wanted.json_schema is not None
    AnswerSchema(wanted.json_schema).check({str(name): one for name, one in EXPRESSIBLE.items()}[way])


async def test_its_answer_is_always_a_choice(backend: LlamaCppBackend) -> None:
    async def picked(most: int, seed: int) -> list[int]:
        message = choosing.asked("Do I need an umbrella tomorrow?", THERE_IS, most)
        asked = request(message, parameters=choosing.PARAMETERS.model_copy(update={"temperature": 1.0, "seed": seed}))
        wanted = replace(asked, response_format=choosing.answer_format(NAMES, most))
        deltas, finished = await answer(backend.generate(wanted))
        assert finished.finish_reason == "stop"
        return choosing.picked("".join(deltas), NAMES, most)

    wanted = [(most, seed) for most in (1, 2) for seed in range(4)]
    found = await asyncio.gather(*(picked(most, seed) for most, seed in wanted))
    print(*zip(wanted, found, strict=True), sep="\n")
    assert all(len(numbers) <= most for (most, _), numbers in zip(wanted, found, strict=True))
    assert any(found)
