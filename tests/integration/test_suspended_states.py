"""What llama.cpp has read of a conversation, saved while it rests and restored with its next prompt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from backplane.ports.identifiers import new_id
from backplane.security.content import CannotRead
from backplane.settings.pools import PoolSettings
from event_schemas.chat import ChatMessage
from event_schemas.generation import GenerationCompleted, Parameters, SubmitPrompt
from tests.conftest import TestDatabase, ValkeyServer
from tests.contract.inference.packaged import add_chat_template
from tests.contract.inference.packaged import packaged_model as packaged_model
from tests.contract.inference.requests import request
from tests.data_keys import data_key
from tests.integration.prompts import scripted
from tests.integration.worker_world import WorkerWorld
from workers.inference.llamacpp import LlamaCppBackend
from workers.inference.port import Delta, Finished, InferenceRequest, RequestRefused
from workers.state_files import StateFiles
from workers.upstream import Upstream

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]

WINDOW = 512
SHORT = Parameters(max_tokens=6, temperature=0)
ENOUGH = 64 * 1024**2


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def files(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StateFiles]:
    files = StateFiles(tmp_path_factory.mktemp("data") / "suspended" / "p", ENOUGH)
    yield files
    files.close()


async def started(model: Path, files: StateFiles, *, slots: int = 2, window: int = WINDOW) -> LlamaCppBackend:
    backend = LlamaCppBackend(model, slots=slots, context_window=window, threads=1)
    backend.keep_states(files.plain)
    await backend.start(lambda doing, share: None)
    return backend


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(packaged_model: Path, files: StateFiles) -> AsyncIterator[LlamaCppBackend]:
    backend = await started(packaged_model, files)
    yield backend
    await backend.close()


def first(word: str) -> InferenceRequest:
    return request(f"The {word} fox jumps over the {word} dog. " * 12, parameters=SHORT)


def then(before: InferenceRequest, text: str) -> InferenceRequest:
    """The next prompt of the conversation."""
    more = (ChatMessage(role="assistant", content=text), ChatMessage(role="user", content="And what comes then?"))
    return replace(before, messages=(*before.messages, *more))


async def said(backend: LlamaCppBackend, asked: InferenceRequest) -> tuple[str, Finished]:
    items = [item async for item in backend.generate(asked)]
    finished = items[-1]
    assert isinstance(finished, Finished)
    return "".join(item.text for item in items if isinstance(item, Delta)), finished


async def saved(backend: LlamaCppBackend, name: str) -> Path:
    file = await backend.save_state(name)
    assert file is not None
    return file


async def test_what_was_read_is_not_read_again_and_the_answer_is_the_same(backend: LlamaCppBackend) -> None:
    before = first("quick")
    text, _ = await said(backend, replace(before, state_name="a"))
    file = await saved(backend, "a")
    assert await backend.save_state("a") is None, "the engine let go of it"
    follow_up = then(before, text)
    anew, read = await said(backend, follow_up)
    assert read.cached_input_tokens == 0
    again, went_on = await said(backend, replace(follow_up, state_file=file, state_name="a"))
    assert (again, went_on.input_tokens) == (anew, read.input_tokens)
    assert read.input_tokens is not None
    assert went_on.cached_input_tokens > read.input_tokens * 0.8
    assert not file.exists()
    third = await saved(backend, "a")
    third.unlink()


async def test_the_slot_is_empty_afterwards(backend: LlamaCppBackend) -> None:
    await said(backend, replace(first("slow"), state_name="b"))
    file = await saved(backend, "b")
    assert file.stat().st_size > 1024**2
    file.unlink()
    states = backend._states
    assert states is not None
    for slot in range(2):
        left = await asyncio.to_thread(states.save, slot)
        if left is not None:
            left.unlink()
        assert await asyncio.to_thread(states.save, slot) is None


async def test_several_at_once(backend: LlamaCppBackend) -> None:
    conversations = {word: first(word) for word in ("red", "blue")}
    texts = dict(
        zip(
            conversations,
            await asyncio.gather(
                *(said(backend, replace(before, state_name=word)) for word, before in conversations.items())
            ),
            strict=True,
        )
    )
    saves = dict(
        zip(conversations, await asyncio.gather(*(saved(backend, word) for word in conversations)), strict=True)
    )
    ends = await asyncio.gather(
        *(
            said(backend, replace(then(before, texts[word][0]), state_file=saves[word]))
            for word, before in conversations.items()
        )
    )
    for word, (text, finished) in zip(conversations, ends, strict=True):
        assert finished.cached_input_tokens > 80
        assert text
        assert not saves[word].exists()


async def test_a_state_is_saved_once_the_answer_that_reads_there_has_ended(backend: LlamaCppBackend) -> None:
    items = backend.generate(replace(first("long"), state_name="c", parameters=Parameters(max_tokens=40)))
    assert isinstance(await anext(items), Delta)
    saving = asyncio.create_task(saved(backend, "c"))
    rest = [item async for item in items]
    assert isinstance(rest[-1], Finished)
    (await asyncio.wait_for(saving, 20)).unlink()


async def test_a_cancelled_answer_leaves_what_was_read(backend: LlamaCppBackend) -> None:
    items = backend.generate(replace(first("cut"), state_name="d"))
    assert isinstance(await anext(items), Delta)
    await items.aclose()
    (await saved(backend, "d")).unlink()


async def test_counting_disturbs_nothing(backend: LlamaCppBackend) -> None:
    await said(backend, replace(first("counted"), state_name="e"))
    for _ in range(3):
        await backend.count(first("other"))
    (await saved(backend, "e")).unlink()


async def test_what_the_engine_does_not_take_is_read_anew(
    backend: LlamaCppBackend, files: StateFiles, caplog: pytest.LogCaptureFixture
) -> None:
    before = first("junk")
    anew, _ = await said(backend, before)
    junk = files.new_plain()
    junk.write_bytes(b"no state" * 1000)
    gone = files.new_plain()
    for file in (junk, gone):
        again, finished = await said(backend, replace(before, state_file=file))
        assert (again, finished.cached_input_tokens) == (anew, 0)
        assert not file.exists()
    assert [record.message for record in caplog.records] == ["state not restored"] * 2


async def test_what_a_slot_held_for_another_is_never_saved_for_whom_the_engine_refused(
    packaged_model: Path, files: StateFiles
) -> None:
    backend = await started(packaged_model, files, slots=1)
    try:
        await said(backend, replace(first("secret"), state_name="of-another"))
        with pytest.raises(RequestRefused) as refused:
            await said(backend, replace(request("word " * 2 * WINDOW), state_name="f"))
        assert refused.value.reason == "context_length_exceeded"
        for name in ("f", "of-another"):
            assert await backend.save_state(name) is None
    finally:
        await backend.close()


async def test_an_engine_with_another_window_takes_nothing_over(
    backend: LlamaCppBackend, packaged_model: Path, files: StateFiles
) -> None:
    other = await started(packaged_model, files, slots=1, window=256)
    await other.close()
    conversation, key = new_id(), data_key(new_id())
    await said(backend, replace(first("wide"), state_name="g"))
    plain = await saved(backend, "g")
    assert files.put(conversation, plain, key, backend.state_facts.encode()) == 0
    plain.unlink()
    taken = files.take(conversation)
    assert taken is not None
    with pytest.raises(CannotRead, match="something else"):
        files.open(taken, key, other.state_facts.encode())
    assert not taken.exists()


async def test_a_model_with_a_chat_template(packaged_model: Path, files: StateFiles, tmp_path: Path) -> None:
    path = tmp_path / "with-template.gguf"
    add_chat_template(packaged_model, path)
    backend = await started(path, files)
    try:
        before = first("chatty")
        text, _ = await said(backend, replace(before, state_name="h"))
        file = await saved(backend, "h")
        follow_up = then(before, text)
        anew, _ = await said(backend, follow_up)
        again, finished = await said(backend, replace(follow_up, state_file=file))
        assert again == anew
        assert finished.cached_input_tokens > 80
    finally:
        await backend.close()


def prompt(text: str, parent: SubmitPrompt | None = None) -> SubmitPrompt:
    made = scripted(text=text)
    if parent is not None:
        made = scripted(text=text, parent=parent.generation_id, conversation=parent.conversation_id)
    return made.model_copy(update={"parameters": SHORT})


async def completed(world: WorkerWorld, asked: SubmitPrompt) -> GenerationCompleted:
    await world.submit(asked)
    ended = (await world.ended(asked)).data
    assert isinstance(ended, GenerationCompleted), ended
    return ended


async def test_a_worker_saves_when_it_is_told_and_restores_with_the_next_prompt(
    backend: LlamaCppBackend, files: StateFiles, database: TestDatabase, valkey_server: ValkeyServer
) -> None:
    async with WorkerWorld(database, valkey_server.url) as world:
        upstream = Upstream(backend, PoolSettings(backend="scripted"))
        await world.worker("a", slots=2, upstream=upstream, states=(backend, files))
        begins = [prompt(f"The {word} fox jumps over the lazy dog. " * 12) for word in ("grey", "white")]
        for begin in begins:
            assert (await completed(world, begin)).usage.cached_input_tokens == 0

        async def rest() -> bool:
            for begin in begins:
                await world.suspend(begin.conversation_id)
            return {*files.conversations()} >= {begin.conversation_id for begin in begins}

        await world.until(rest, "both were saved")

        async def nothing_plain() -> bool:
            return not list(files.plain.iterdir())

        await world.until(nothing_plain, "no plain file is left")
        follow_ups = [prompt("And what comes then?", begin) for begin in begins]
        for ended in await asyncio.gather(*(completed(world, follow_up) for follow_up in follow_ups)):
            assert ended.usage.input_tokens > ended.usage.cached_input_tokens > 80
        assert files.conversations() == []
        last = await completed(world, prompt("And then?", follow_ups[0]))
        assert last.usage.cached_input_tokens == 0, "it did not rest meanwhile"
        await world.until(nothing_plain, "no plain file is left")
