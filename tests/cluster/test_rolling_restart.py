"""Parley as the compose file has it, behind its proxy: prompts, streams, and a rolling restart of everything."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from tests.cluster.cluster import REPLICAS, Cluster
from tests.cluster.container import Container
from tests.cluster.visitors import SdkVisitor, Visitor
from tests.e2e.client import TERMINAL, Answer, Client, eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800), pytest.mark.asyncio(loop_scope="module")]

SCRIPTED, REAL = "script", "gemma-3-270m"
SUBMITTED = "prompt.submit."
ENDINGS = tuple(f"generation.{how}." for how in TERMINAL)
CRASHED = '"action": "service_crashed"'
VISITORS = 8
PATIENCE_S = 300.0
"""How long one restart may keep everybody waiting."""


class Diary:
    """All that happened to containers, in one file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def line(self, text: str) -> None:
        with self._file.open("a") as stream:
            stream.write(f"{text}\n")

    def progress(self, source: str, what: str, share: float) -> None:
        pass

    def done(self, source: str) -> None:
        pass


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(short_folder: Path) -> AsyncIterator[Cluster]:
    folder = short_folder / "cluster"
    folder.mkdir()
    made = Cluster(folder, Diary(folder / "diary"))
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def key(cluster: Cluster) -> str:
    return await cluster.key()


@pytest_asyncio.fixture(loop_scope="module")
async def client(cluster: Cluster, key: str) -> AsyncIterator[Client]:
    async with Client(cluster.url, key) as opened:
        yield opened


@pytest.mark.parametrize("model", [SCRIPTED, REAL])
async def test_a_prompt_goes_round_the_ring(client: Client, model: str) -> None:
    accepted = await client.submit("Hello?", model=model, parameters={"max_tokens": 12})
    answer = await client.follow_through(accepted["generation_id"], Answer())
    ended = await client.ended(accepted["generation_id"])
    assert (ended["status"], ended["model"], ended["content"]) == ("completed", model, answer.text)
    assert answer.text
    messages = await client.messages(accepted["conversation_id"])
    assert [message["content"] for message in messages] == ["Hello?", answer.text]


async def test_a_token_passes_the_proxy_before_the_answer_has_ended(client: Client) -> None:
    # It says nothing more until it is cancelled.
    script = {"tokens": ["one ", "two ", "three"], "hang_after": 2}
    accepted = await client.submit("talk", model=SCRIPTED, script=script)
    told = ""
    async for event in client.stream(accepted["generation_id"]):
        told += event.data if event.event == "token" else ""
        if "two" in told:
            break
    assert (await client.generation(accepted["generation_id"]))["status"] not in TERMINAL
    await client.cancel(accepted["generation_id"])
    assert (await client.ended(accepted["generation_id"]))["status"] == "cancelled"


async def test_openais_sdk_is_answered_through_the_proxy(cluster: Cluster, key: str) -> None:
    async with AsyncOpenAI(api_key=key, base_url=f"{cluster.url}/v1", max_retries=0) as openai:
        assert {SCRIPTED, REAL} <= {model.id async for model in openai.models.list()}
        hangs = 'script: {"tokens": ["one ", "two ", "three"], "hang_after": 2}'
        async with await openai.chat.completions.create(
            model=SCRIPTED, messages=[{"role": "user", "content": hangs}], stream=True
        ) as stream:
            told = ""
            async for chunk in stream:
                told += chunk.choices[0].delta.content or ""
                if told == "one two ":
                    break
        whole = await openai.chat.completions.create(
            model=SCRIPTED, messages=[{"role": "user", "content": 'script: {"tokens": ["one ", "two"]}'}]
        )
        assert whole.choices[0].message.content == "one two"


async def test_everything_is_restarted_while_people_talk(cluster: Cluster, key: str) -> None:
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client(cluster.url, key)) for _ in range(VISITORS)]
        sdk = await stack.enter_async_context(AsyncOpenAI(api_key=key, base_url=f"{cluster.url}/v1"))
        sdks = [
            SdkVisitor("sdk-stream", sdk, SCRIPTED, 30, streams=True),
            SdkVisitor("sdk-whole", sdk, SCRIPTED, 30, streams=False),
        ]
        before = Counter(await submitted(clients[0]))
        visitors = [
            *(Visitor(f"v{place}", one, {"model": SCRIPTED}, 40) for place, one in enumerate(clients[1:])),
            Visitor("real", clients[0], {"model": REAL, "parameters": {"max_tokens": 16}}, None),
        ]
        everybody: list[Visitor | SdkVisitor] = [*visitors, *sdks]
        async with asyncio.TaskGroup() as talking:
            for one in everybody:
                talking.create_task(one.run(stop))
            await talk_goes_on(visitors)
            restarted = []
            for name, containers in list(cluster.containers.items()):
                for place, container in enumerate(containers):
                    await restart(container, kill=place > 0 or name == "redis")
                    restarted.append(container.name)
                    await talk_goes_on(visitors)
            stop.set()
        assert len(restarted) == len(cluster.containers) + sum(count - 1 for count in REPLICAS.values())
        assert [fault for one in everybody for fault in one.faults] == []
        await nothing_is_lost(clients[0], visitors)
        await everything_was_answered_once(clients[0], sdks)
        asked = Counter(await submitted(clients[0])) - before
        assert asked.total() == sum(len(one.visits) for one in visitors) + sum(len(one.questions) for one in sdks)
    crashed = [one.name for group in cluster.containers.values() for one in group if CRASHED in one.log.read_text()]
    assert crashed == [], "a bug ended them, and their restart rule hid it"


async def restart(container: Container, kill: bool) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await (container.kill() if kill else container.restart())


async def talk_goes_on(visitors: list[Visitor]) -> None:
    """Most of them have a prompt answered that they asked from now on."""
    begun = [len(visitor.visits) for visitor in visitors]

    async def answered() -> int:
        return sum(visitor.done > before for visitor, before in zip(visitors, begun, strict=True))

    await eventually(answered, lambda number: number >= VISITORS - 2, within=PATIENCE_S)


async def nothing_is_lost(client: Client, visitors: list[Visitor]) -> None:
    visits = {visit.generation_id: visit for visitor in visitors for visit in visitor.visits}
    assert len(visits) == sum(len(visitor.visits) for visitor in visitors)
    for generation_id, visit in visits.items():
        ended = await client.ended(generation_id)
        assert (ended["status"], visit.answer.told[-1]) == ("completed", "completed"), ended
        assert ended["content"] == visit.answer.text
        assert visit.expected in (None, visit.answer.text)
    # Each was asked once, however often it was sent, and ended once.
    record = [event for event in await client.events() if event["data"].get("generation_id") in visits]
    for kinds in ((SUBMITTED,), ENDINGS):
        told = Counter(event["data"]["generation_id"] for event in record if event["type"].startswith(kinds))
        assert told == Counter(visits.keys())


async def everything_was_answered_once(client: Client, sdks: list[SdkVisitor]) -> None:
    for sdk in sdks:
        assert [question.told for question in sdk.questions] == [question.expected for question in sdk.questions]
        assert len(sdk.questions) > 3
        for question in sdk.questions:
            (generation_id,) = question.generations
            assert (await client.ended(generation_id))["content"] == question.expected
    assert any(question.tries > 1 for sdk in sdks for question in sdk.questions), "no answer was cut"


async def submitted(client: Client) -> list[str]:
    """The generations that were asked for, by the record."""
    return [event["data"]["generation_id"] for event in await client.events() if event["type"].startswith(SUBMITTED)]
