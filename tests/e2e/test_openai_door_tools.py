"""OpenAI's own SDK at OpenAI's door, before a pool whose provider is OpenAI's to the letter: tools, schemas, pictures,
likelihoods."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

from tests.e2e.running import Up
from tests.providers.script import Call, Script
from tests.providers.server import Providers, providers

pytestmark = pytest.mark.timeout(240)

MODEL = "fast"
ASK: Any = [{"role": "user", "content": "What is the weather in Bonn?"}]
PICTURE = "data:image/png;base64,iVBORw0KGgo="
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
                "additionalProperties": False,
            },
            "strict": True,
        },
    }
]
BONN = Call(name="get_weather", arguments={"city": "Bonn"})
COLOGNE = Call(name="get_weather", arguments={"city": "Cologne"})


class Person(BaseModel):
    name: str
    age: int


class World:
    def __init__(self, server: Providers, sdk: AsyncOpenAI) -> None:
        self.server = server
        self.sdk = sdk

    @property
    def asked(self) -> dict[str, Any]:
        """What the provider was asked last."""
        body: dict[str, Any] = self.server.ledger["sk-good"].asked[-1].body
        return body

    async def create(self, **request: Any) -> Any:
        return await self.sdk.chat.completions.create(**{"model": MODEL, "messages": ASK} | request)


@pytest.fixture
async def world(short_folder: Path) -> AsyncIterator[World]:
    async with providers() as server, AsyncExitStack() as stack:
        server.add_key("sk-good")
        pool = {
            "backend": "openai",
            "base_url": server.openai_url,
            "models": [{MODEL: "gpt-4o-mini"}],
            "keys": ["sk-good"],
            "requests_per_minute": 1000,
        }
        up = Up(short_folder / "tools", PARLEY_POOLS=json.dumps({"cloud": pool}))
        try:
            up.start()
            await asyncio.to_thread(up.ready)
            sdk = AsyncOpenAI(base_url=f"{up.url}/v1", api_key=up.admin_key, max_retries=0)
            yield World(server, await stack.enter_async_context(sdk))
            assert await asyncio.to_thread(up.stop) == 0
        finally:
            up.end()


async def test_what_models_can_do_beyond_words(world: World) -> None:
    """One Parley for all of it: it takes longer to start than to ask."""
    await tools_are_called_and_answered(world)
    await calls_stream_piece_by_piece(world)
    await an_answer_is_parsed(world)
    await a_picture_is_seen(world)
    await likelihoods_come_with_the_answer_and_in_the_stream(world)
    await what_the_provider_refuses_is_no_retry(world)


async def tools_are_called_and_answered(world: World) -> None:
    world.server.queue(Script(calls=(BONN, COLOGNE)))
    asked = await world.create(tools=TOOLS, tool_choice="required", parallel_tool_calls=True)
    (choice,) = asked.choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    assert [json.loads(one.function.arguments) for one in choice.message.tool_calls] == [
        {"city": "Bonn"},
        {"city": "Cologne"},
    ]
    assert world.asked["tools"] == TOOLS
    assert world.asked["tool_choice"] == "required"
    # As the SDK's users do: the message itself goes back, and what the tools said.
    results = [{"role": "tool", "tool_call_id": one.id, "content": "sunny"} for one in choice.message.tool_calls]
    world.server.queue(Script(text="Sunny in both."))
    told = await world.create(messages=[*ASK, choice.message, *results], tools=TOOLS)
    assert told.choices[0].message.content == "Sunny in both."
    assert [one["role"] for one in world.asked["messages"]] == ["user", "assistant", "tool", "tool"]
    assert [one["id"] for one in world.asked["messages"][1]["tool_calls"]] == [
        one.id for one in choice.message.tool_calls
    ]


async def calls_stream_piece_by_piece(world: World) -> None:
    world.server.queue(Script(calls=(BONN, COLOGNE)))
    async with world.sdk.chat.completions.stream(model=MODEL, messages=ASK, tools=TOOLS) as stream:
        kinds = {event.type async for event in stream}
        final = await stream.get_final_completion()
    assert {"tool_calls.function.arguments.delta", "tool_calls.function.arguments.done"} <= kinds
    calls = final.choices[0].message.tool_calls
    assert calls is not None
    assert [(one.function.name, one.function.parsed_arguments) for one in calls] == [
        ("get_weather", {"city": "Bonn"}),
        ("get_weather", {"city": "Cologne"}),
    ]
    assert final.choices[0].finish_reason == "tool_calls"


async def an_answer_is_parsed(world: World) -> None:
    world.server.queue(Script(text='{"name": "Ada", "age": 36}'))
    found = await world.sdk.chat.completions.parse(model=MODEL, messages=ASK, response_format=Person)
    assert found.choices[0].message.parsed == Person(name="Ada", age=36)
    assert world.asked["response_format"]["json_schema"]["schema"]["required"] == ["name", "age"]


async def a_picture_is_seen(world: World) -> None:
    parts = [{"type": "text", "text": "And this?"}, {"type": "image_url", "image_url": {"url": PICTURE}}]
    assert (await world.create(messages=[{"role": "user", "content": parts}])).choices[0].message.content
    (message,) = world.asked["messages"]
    assert [part["type"] for part in message["content"]] == ["text", "image_url"]
    assert message["content"][1]["image_url"]["url"] == PICTURE


async def likelihoods_come_with_the_answer_and_in_the_stream(world: World) -> None:
    found = (await world.create(logprobs=True, top_logprobs=2)).choices[0]
    assert "".join(token.token for token in found.logprobs.content) == found.message.content
    assert {len(token.top_logprobs) for token in found.logprobs.content} == {2}
    chunks = [one async for one in await world.create(logprobs=True, stream=True)]
    told = [token for one in chunks for token in (one.choices[0].logprobs or _NOTHING).content or ()]
    assert "".join(token.token for token in told) == "".join(one.choices[0].delta.content or "" for one in chunks)
    assert all(token.logprob <= 0 for token in told)


class _NOTHING:
    content = None


async def what_the_provider_refuses_is_no_retry(world: World) -> None:
    world.server.queue(Script(fault="context"))
    with pytest.raises(openai.BadRequestError) as refused:
        await world.create()
    assert refused.value.code == "context_length_exceeded"
