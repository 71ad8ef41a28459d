"""What is saved of a conversation that rests, and by which key; and what is left of it afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prometheus_client import REGISTRY

from backplane.ports import suspensions
from backplane.security.content import DataKey
from backplane.security.sealed_file import sealed_bytes
from event_schemas.chat import ChatMessage
from event_schemas.generation import PromptContent, SubmitPrompt
from event_schemas.sources import TextWish
from tests.contract.inference.requests import request
from tests.data_keys import DATA_KEYS
from tests.integration.prompts import scripted
from workers.inference.port import BackendUnavailable
from workers.state_files import StateFiles
from workers.suspension import Suspension, is_kept
from workers.window import Said

TENANT = UUID(int=1)
TEXT = b"what the engine has read " * 40
DEADLINE_S = 10.0


class Engine:
    """Holds states by name, and writes them to files as an engine does."""

    def __init__(self, files: StateFiles) -> None:
        self.folder = files.plain
        self.held: dict[str, bytes] = {}
        self.busy = asyncio.Event()
        self.busy.set()
        self.fails = False

    def keep_states(self, folder: Path) -> None:
        self.folder = folder

    @property
    def state_facts(self) -> str:
        return "this engine, this model"

    async def save_state(self, name: str) -> Path | None:
        await self.busy.wait()
        if self.fails:
            raise BackendUnavailable("engine_failed", "the engine does not answer")
        state = self.held.pop(name, None)
        if state is None:
            return None
        file = self.folder / uuid4().hex
        file.write_bytes(state)
        return file


class Keys:
    """``control.data_keys``, as a worker reads it."""

    def __init__(self) -> None:
        self.wrapped: dict[UUID, bytes] = {}

    @asynccontextmanager
    async def tenant(self, tenant_id: UUID) -> AsyncIterator[Any]:
        yield self

    tenant_id = TENANT

    async def one(self, sql: str, *, tenant_id: UUID, id: UUID) -> dict[str, Any] | None:
        return {"wrapped": self.wrapped[id]} if id in self.wrapped else None

    async def at_once(self, sql: str, *, ids: list[UUID]) -> list[dict[str, Any]]:
        return [{"conversation_id": id} for id in ids if id in self.wrapped]

    async def new(self, conversation_id: UUID) -> DataKey:
        key, self.wrapped[conversation_id] = await DATA_KEYS.make(TENANT, conversation_id)
        return key


class Wires:
    """Signals within this process."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[str] = asyncio.Queue()

    async def send(self, channel: str, message: str) -> None:
        await self.queue.put(message)

    @asynccontextmanager
    async def listen(self, channel: str) -> AsyncIterator[AsyncIterator[str]]:
        async def messages() -> AsyncIterator[str]:
            while True:
                yield await self.queue.get()

        yield messages()


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = StateFiles(folder, 3 * sealed_bytes(len(TEXT)))
        self.engine = Engine(self.files)
        self.keys, self.signals = Keys(), Wires()
        database: Any = self.keys
        self.suspension = Suspension(self.engine, self.files, database, DATA_KEYS)

    async def read(self, prompt: SubmitPrompt, key: DataKey) -> None:
        """The engine reads this prompt."""
        async with self.suspension.taken_up(request(), prompt, key) as asked:
            assert asked.state_name is not None
            self.engine.held[asked.state_name] = TEXT

    async def suspend(self, prompt: SubmitPrompt) -> None:
        await suspensions.announce(self.signals, TENANT, prompt.conversation_id)

    def sealed(self) -> list[UUID]:
        return self.files.conversations()

    def plain(self) -> list[Path]:
        return list(self.files.plain.iterdir())

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not holds():
                await asyncio.sleep(0.005)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path / "suspended" / "p")
    following = asyncio.create_task(world.suspension.follow(world.signals))
    yield world
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    world.files.close()


def counted(outcome: str) -> float:
    return REGISTRY.get_sample_value("parley_worker_suspended_states_total", {"outcome": outcome}) or 0.0


async def test_what_was_read_rests_sealed_and_is_taken_up_once(world: World) -> None:
    prompt, before = scripted(), counted("saved")
    key = await world.keys.new(prompt.conversation_id)
    await world.read(prompt, key)
    await world.suspend(prompt)
    await world.until(lambda: world.sealed() == [prompt.conversation_id] and not world.plain())
    assert counted("saved") == before + 1
    assert world.engine.held == {}, "the engine let go of it"
    assert TEXT[:30] not in (world.folder / str(prompt.conversation_id)).read_bytes()
    async with world.suspension.taken_up(request(), prompt, key) as asked:
        assert asked.state_file is not None
        assert asked.state_file.read_bytes() == TEXT
        assert asked.state_file.parent == world.engine.folder
        assert world.sealed() == []
    await world.until(lambda: not world.plain())
    async with world.suspension.taken_up(request(), prompt, key) as asked:
        assert asked.state_file is None


async def test_several_at_once(world: World) -> None:
    prompts = [scripted() for _ in range(3)]
    for prompt in prompts:
        await world.read(prompt, await world.keys.new(prompt.conversation_id))
    for prompt in prompts:
        await world.suspend(prompt)
    await world.until(lambda: {*world.sealed()} == {prompt.conversation_id for prompt in prompts})
    await world.until(lambda: not world.plain())


async def test_who_holds_nothing_and_who_has_no_key_save_nothing(world: World) -> None:
    known, erased, last = scripted(), scripted(), scripted()
    await world.keys.new(known.conversation_id)
    await world.read(erased, await world.keys.new(erased.conversation_id))
    del world.keys.wrapped[erased.conversation_id]
    await world.read(last, await world.keys.new(last.conversation_id))
    for prompt in (known, erased, last):
        await world.suspend(prompt)
    await world.until(lambda: world.sealed() == [last.conversation_id])


async def test_what_was_read_before_an_erasure_is_not_saved_under_the_key_after_it(world: World) -> None:
    prompt, last = scripted(), scripted()
    await world.read(prompt, await world.keys.new(prompt.conversation_id))
    await world.keys.new(prompt.conversation_id)
    await world.read(last, await world.keys.new(last.conversation_id))
    for suspended in (prompt, last):
        await world.suspend(suspended)
    await world.until(lambda: world.sealed() == [last.conversation_id])


async def test_what_another_key_sealed_is_read_anew(world: World, caplog: pytest.LogCaptureFixture) -> None:
    prompt, before = scripted(), counted("refused")
    await world.read(prompt, await world.keys.new(prompt.conversation_id))
    await world.suspend(prompt)
    await world.until(lambda: bool(world.sealed()))
    other = await world.keys.new(prompt.conversation_id)
    async with world.suspension.taken_up(request(), prompt, other) as asked:
        assert asked.state_file is None
    assert (counted("refused"), world.sealed(), world.plain()) == (before + 1, [], [])
    (told,) = [record for record in caplog.records if record.message == "state not restored"]
    assert "another key" in vars(told)["cause"]


async def test_the_next_prompt_waits_for_what_is_being_saved(world: World) -> None:
    prompt = scripted()
    key = await world.keys.new(prompt.conversation_id)
    await world.read(prompt, key)
    world.engine.busy.clear()
    await world.suspend(prompt)
    await world.until(lambda: bool(world.suspension._saving))

    async def next_prompt() -> bytes:
        async with world.suspension.taken_up(request(), prompt, key) as asked:
            assert asked.state_file is not None
            return asked.state_file.read_bytes()

    asking = asyncio.create_task(next_prompt())
    await asyncio.sleep(0)
    assert not asking.done()
    world.engine.busy.set()
    assert await asyncio.wait_for(asking, DEADLINE_S) == TEXT


async def test_who_is_cancelled_in_the_middle_leaves_nothing(world: World) -> None:
    prompt = scripted()
    key = await world.keys.new(prompt.conversation_id)
    for turns in range(6):
        await world.read(prompt, key)
        await world.suspend(prompt)
        await world.until(lambda: bool(world.sealed()) and not world.plain())

        async def take_up() -> None:
            async with world.suspension.taken_up(request(), prompt, key):
                await asyncio.Event().wait()

        asking = asyncio.create_task(take_up())
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await world.until(lambda: not world.plain())
        if turns:
            assert world.sealed() == []


async def test_an_engine_that_fails_is_told_of_and_the_next_is_saved(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    prompt, before = scripted(), counted("failed")
    await world.read(prompt, await world.keys.new(prompt.conversation_id))
    world.engine.fails = True
    await world.suspend(prompt)
    await world.until(lambda: counted("failed") == before + 1)
    assert [vars(record)["cause"] for record in caplog.records] == ["the engine does not answer"]
    world.engine.fails = False
    await world.suspend(prompt)
    await world.until(lambda: bool(world.sealed()))


async def test_what_is_too_large_is_not_kept(world: World) -> None:
    prompt, before = scripted(), counted("dropped")
    key = await world.keys.new(prompt.conversation_id)
    await world.read(prompt, key)
    world.engine.held = dict.fromkeys(world.engine.held, TEXT * 4)
    await world.suspend(prompt)
    await world.until(lambda: counted("dropped") == before + 1 and not world.plain())
    assert world.sealed() == []


async def test_what_no_key_opens_any_more_is_deleted(world: World) -> None:
    prompts = [scripted() for _ in range(2)]
    for prompt in prompts:
        await world.read(prompt, await world.keys.new(prompt.conversation_id))
        await world.suspend(prompt)
    await world.until(lambda: len(world.sealed()) == 2)
    del world.keys.wrapped[prompts[0].conversation_id]
    forgetting = asyncio.create_task(world.suspension.forget_erased(every_s=0.01))
    await world.until(lambda: world.sealed() == [prompts[1].conversation_id])
    forgetting.cancel()
    await asyncio.gather(forgetting, return_exceptions=True)


def test_only_a_conversations_own_words_are_kept() -> None:
    message = ChatMessage(role="user", content="Hi")
    content, said = PromptContent(messages=(message,)), Said(before=(), own=(message,))
    prompt = scripted()
    assert is_kept(prompt, content, said)
    assert not is_kept(prompt, content, replace(said, forked=True))
    assert not is_kept(prompt, content.model_copy(update={"sources": (TextWish(text="page"),)}), said)
    for other in ({"purpose": "summary"}, {"purpose": "title"}, {"keeps_content": False}):
        assert not is_kept(prompt.model_copy(update=other), content, said)
