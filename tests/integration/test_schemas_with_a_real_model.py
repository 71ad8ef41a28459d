"""The packaged model is held to schemas by its engine, and admission refuses those that it would take no notice of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from backplane.settings.answer_schemas import ASSERTIONS, EXPRESSIBLE
from command_api.answer_schema import AnswerSchema, SchemaFault
from event_schemas.chat import ResponseFormat
from event_schemas.generation import Parameters
from tests.contract.inference.packaged import add_chat_template
from tests.contract.inference.packaged import packaged_model as packaged_model
from tests.contract.inference.requests import answer, request
from tests.integration.answer_schemas import BESIDE, REFUSED, TAKEN, Schema
from workers.answer_check import check
from workers.inference.llamacpp import LlamaCppBackend

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]

SEEDS = range(7, 12)
GRAMMAR = EXPRESSIBLE["grammar"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(packaged_model: Path) -> AsyncIterator[LlamaCppBackend]:
    backend = LlamaCppBackend(packaged_model, slots=8, context_window=512)
    await backend.start(lambda doing, share: None)
    yield backend
    await backend.close()


async def said(backend: LlamaCppBackend, schema: Schema, *, most: int = 96, seeds: range = SEEDS) -> str:
    """The first answer that comes to its end. What contains itself may go on for ever, and no grammar forbids it."""
    for seed in seeds:
        asked = request("Give me an example.", parameters=Parameters(max_tokens=most, temperature=0.8, seed=seed))
        wanted = replace(asked, response_format=ResponseFormat(json_schema=schema))
        deltas, finished = await answer(backend.generate(wanted))
        if finished.finish_reason == "stop":
            break
    return "".join(deltas)


@pytest.mark.timeout(600)
async def test_the_model_keeps_to_every_schema_that_admission_takes(backend: LlamaCppBackend) -> None:
    for schema in TAKEN.values():
        AnswerSchema(schema).check(GRAMMAR)
    answers = await asyncio.gather(*(said(backend, schema) for schema in TAKEN.values()))
    print(*zip(TAKEN, answers, strict=True), sep="\n")
    found = {name: check(text, TAKEN[name], loose=False) for name, text in zip(TAKEN, answers, strict=True)}
    assert {name: told for name, told in found.items() if len(told) == 3} == {}
    assert len(found) == 30


@pytest.mark.timeout(600)
async def test_the_engine_takes_no_notice_of_the_schemas_that_admission_refuses(backend: LlamaCppBackend) -> None:
    for keyword, schema in REFUSED.items():
        with pytest.raises(SchemaFault, match=rf"^`{keyword}` at "):
            AnswerSchema(schema).check(GRAMMAR)
    asked = (said(backend, schema, most=4, seeds=SEEDS[:1]) for schema in REFUSED.values())
    # Were it held to one of them, it would begin with JSON, and it has been asked for nothing of the kind in words.
    begun = {keyword: text[:1] for keyword, text in zip(REFUSED, await asyncio.gather(*asked), strict=True)}
    assert {keyword: first for keyword, first in begun.items() if first in tuple('{["-0123456789')} == {}


async def test_both_lists_together_have_every_keyword() -> None:
    taken = {keyword for schema in TAKEN.values() for keyword in _keywords(schema)}
    assert taken & ASSERTIONS == GRAMMAR.keywords
    assert REFUSED.keys() - GRAMMAR.keywords == ASSERTIONS - GRAMMAR.keywords - BESIDE


def _keywords(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for name, inner in schema.items():
            yield name
            yield from _keywords(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _keywords(inner)


@pytest.mark.timeout(300)
async def test_a_model_with_a_chat_template_is_held_to_a_schema_too(packaged_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "chat.gguf"
    add_chat_template(packaged_model, file)
    backend = LlamaCppBackend(file, slots=2, context_window=512)
    await backend.start(lambda doing, share: None)
    try:
        for name in ("an object", "a union told apart behind references", "a tree"):
            text = await said(backend, TAKEN[name])
            assert len(check(text, TAKEN[name], loose=False)) == 2, (name, text)
    finally:
        await backend.close()
