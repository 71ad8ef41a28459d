"""What only a provider can do, by OpenAI's protocol: faults, limits, tools, pictures, wrong counts."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from backplane.settings import LlmSettings, PoolSettings
from event_schemas.chat import ChatMessage, ImagePart, NamedTool, ResponseFormat, TextPart, Tool, ToolCall
from event_schemas.generation import Parameters
from tests.contract.inference.requests import request
from tests.providers.script import Call, Script
from tests.providers.server import Providers, providers
from workers.inference.openai_chat import OpenAIBackend
from workers.inference.port import (
    Backend,
    BackendError,
    BackendUnavailable,
    Delta,
    Finished,
    InferenceRequest,
    Item,
    KeyRefused,
    Limits,
    NotServed,
    RateLimited,
    Reasoning,
    RequestRefused,
    ToolCallDelta,
)
from workers.inference.registry import make_backend

KEY = "sk-good"
LOOK = Tool(
    name="look",
    description="Look somewhere.",
    parameters={"type": "object", "properties": {"where": {"type": "string"}}, "required": ["where"]},
)


@pytest.fixture
async def server() -> AsyncIterator[Providers]:
    async with providers(extra_parameters=frozenset(("top_k", "min_p"))) as running:
        running.add_key(KEY)
        yield running


@pytest.fixture
async def backend(server: Providers) -> AsyncIterator[OpenAIBackend]:
    made = OpenAIBackend(server.openai_url, slots=4)
    await made.start(lambda doing, share: None)
    yield made
    await made.close()


def asked(*messages: ChatMessage | str, parameters: Parameters | None = None, **more: Any) -> InferenceRequest:
    made = request(*messages, parameters=parameters or Parameters())
    return replace(made, model="gpt-4o-mini", key=KEY, **more)


async def all_of(backend: Backend, wanted: InferenceRequest) -> list[Item]:
    async with asyncio.timeout(10), aclosing(backend.generate(wanted)) as items:
        return [item async for item in items]


def text_of(items: list[Item]) -> str:
    return "".join(item.text for item in items if isinstance(item, Delta))


@pytest.mark.parametrize(
    ("script", "kind", "reason"),
    [
        (Script(fault="400"), RequestRefused, "invalid_request"),
        (Script(fault="401"), KeyRefused, "key_refused"),
        (Script(fault="403"), KeyRefused, "key_refused"),
        (Script(fault="404"), RequestRefused, "unknown_model"),
        (Script(fault="context"), RequestRefused, "context_length_exceeded"),
        (Script(fault="429", retry_after=3), RateLimited, "rate_limited"),
        (Script(fault="429"), RateLimited, "rate_limited"),
        (Script(fault="quota"), KeyRefused, "key_exhausted"),
        (Script(fault="500"), NotServed, "provider_failed"),
        (Script(fault="503"), NotServed, "provider_failed"),
        (Script(fault="cut_early"), BackendUnavailable, "provider_lost"),
        (Script(fault="cut"), BackendUnavailable, "provider_lost"),
        (Script(fault="reset"), BackendUnavailable, "provider_lost"),
        (Script(fault="truncated"), BackendUnavailable, "stream_cut"),
        (Script(fault="stream_error"), BackendUnavailable, "provider_failed"),
        (Script(fault="no_end"), BackendUnavailable, "stream_cut"),
    ],
    ids=lambda value: f"{value.fault}-{value.retry_after}" if isinstance(value, Script) else None,
)
async def test_what_goes_wrong_has_its_name(
    server: Providers, backend: OpenAIBackend, script: Script, kind: type[BackendError], reason: str
) -> None:
    server.queue(script)
    with pytest.raises(kind) as raised:
        await all_of(backend, asked("a secret prompt"))
    assert (type(raised.value), raised.value.reason) == (kind, reason)
    assert "secret" not in str(raised.value)
    assert KEY not in str(raised.value)
    if isinstance(raised.value, RateLimited):
        assert raised.value.retry_after_s == script.retry_after
    assert text_of(await all_of(backend, asked())), "the next one is served"


async def test_a_wrong_key_and_a_wrong_address(server: Providers, backend: OpenAIBackend) -> None:
    with pytest.raises(KeyRefused) as refused:
        await all_of(backend, replace(asked(), key="sk-wrong-secret"))
    assert "sk-wrong" not in str(refused.value)
    nowhere = OpenAIBackend("http://127.0.0.1:9/v1", slots=1)
    await nowhere.start(lambda doing, share: None)
    with pytest.raises(NotServed, match=r"http://127\.0\.0\.1:9/v1 cannot be reached"):
        await all_of(nowhere, asked())
    await nowhere.close()


async def test_what_the_key_has_left_is_told_first(server: Providers, backend: OpenAIBackend) -> None:
    server.add_key("sk-limited", requests_per_minute=3, tokens_per_minute=10_000)
    items = await all_of(backend, replace(asked(), key="sk-limited"))
    assert isinstance(items[0], Limits)
    assert (items[0].requests_per_minute, items[0].tokens_per_minute, items[0].requests_left) == (3, 10_000, 2)
    for _ in range(2):
        await all_of(backend, replace(asked(), key="sk-limited"))
    with pytest.raises(RateLimited) as limited:
        await all_of(backend, replace(asked(), key="sk-limited"))
    assert limited.value.retry_after_s is not None
    assert 0 < limited.value.retry_after_s <= 60


@pytest.mark.parametrize("usage", ["negative", "null", "missing", "strings"])
async def test_counts_that_cannot_be_true_are_none(server: Providers, backend: OpenAIBackend, usage: Any) -> None:
    server.queue(Script(usage=usage, words=3))
    finished = (await all_of(backend, asked()))[-1]
    assert finished == Finished("stop", None, None)


async def test_a_server_that_knows_no_usage_is_not_asked_for_it(server: Providers) -> None:
    pool = PoolSettings(backend="openai", models=("m",), base_url=server.openai_url, without=("usage",))
    backend = make_backend("p", pool, LlmSettings())
    await backend.start(lambda doing, share: None)
    try:
        wanted = asked()
        assert (await all_of(backend, wanted))[-1] == Finished("stop", None, None)
        (entry,) = server.ledger.tagged(f"{wanted.generation_id}.1")
        assert "stream_options" not in entry.body
    finally:
        await backend.close()


async def test_logprobs_are_of_the_text_alone(server: Providers, backend: OpenAIBackend) -> None:
    server.queue(Script(text="Grüße an alle", reasoning=2, calls=(Call(arguments={"where": "up"}),)))
    items = await all_of(backend, asked(tools=(LOOK,), parameters=Parameters(logprobs=True)))
    said = [item for item in items if isinstance(item, Delta)]
    assert [[(token["token"], token["top_logprobs"]) for token in delta.logprobs] for delta in said] == [
        [("Grüße", [])],
        [(" an", [])],
        [(" alle", [])],
    ]


async def test_cached_and_reasoning_tokens_are_told(server: Providers, backend: OpenAIBackend) -> None:
    server.queue(Script(words=3, reasoning=2, cached=4))
    items = await all_of(backend, asked("one two three four five six"))
    assert items[-1] == Finished("stop", 6, 5, cached_input_tokens=4, reasoning_tokens=2)
    assert sum(isinstance(item, Reasoning) for item in items) == 2
    assert server.ledger[KEY].output_tokens == 5


async def test_tool_calls_come_in_pieces(server: Providers, backend: OpenAIBackend) -> None:
    server.queue(
        Script(
            calls=(Call(arguments={"where": "out of the window"}), Call(arguments={"where": "up"})), interleaved=True
        )
    )
    items = await all_of(backend, asked(tools=(LOOK,)))
    calls: dict[int, tuple[str | None, str]] = {}
    for item in items:
        if isinstance(item, ToolCallDelta):
            name, said = calls.get(item.number, (item.name, ""))
            calls[item.number] = name, said + item.arguments
    assert {number: (name, json.loads(said)) for number, (name, said) in calls.items()} == {
        0: ("look", {"where": "out of the window"}),
        1: ("look", {"where": "up"}),
    }
    assert isinstance(items[-1], Finished)
    assert items[-1].finish_reason == "tool_calls"


async def test_a_whole_conversation_is_translated(server: Providers, backend: OpenAIBackend) -> None:
    picture = "data:image/png;base64,iVBORw0KGgo="
    conversation = (
        ChatMessage(role="system", content="Be brief."),
        ChatMessage(role="user", content=(TextPart(text="What is it?"), ImagePart(url=picture, detail="low"))),
        ChatMessage(role="assistant", content="", tool_calls=(ToolCall(id="c1", name="look", arguments="{}"),)),
        ChatMessage(role="tool", content="A cat", tool_call_id="c1"),
    )
    wanted = asked(
        *conversation,
        parameters=Parameters(
            temperature=0.5,
            top_p=0.9,
            top_k=5,
            presence_penalty=0.1,
            frequency_penalty=0.2,
            max_tokens=7,
            seed=3,
            logprobs=True,
            top_logprobs=2,
            tool_choice=NamedTool(name="look"),
            parallel_tool_calls=False,
        ),
        tools=(LOOK,),
        stop=("\n\n",),
        response_format=ResponseFormat(name="seen", json_schema={"type": "object"}, strict=True),
    )
    await all_of(backend, wanted)
    (entry,) = server.ledger.tagged(f"{wanted.generation_id}.1")
    assert entry.body == {
        "model": "gpt-4o-mini",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is it?"},
                    {"type": "image_url", "image_url": {"url": picture, "detail": "low"}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "A cat"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "max_tokens": 7,
        "stop": ["\n\n"],
        "seed": 3,
        "logprobs": True,
        "top_logprobs": 2,
        "tools": [{"type": "function", "function": LOOK.model_dump(exclude_none=True)}],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
        "parallel_tool_calls": False,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "seen", "schema": {"type": "object"}, "strict": True},
        },
    }


@pytest.mark.parametrize(
    "script",
    [
        Script(words=40, comments=3),
        Script(words=40, crlf=True),
        Script(words=40, split="line"),
        Script(words=40, split="character"),
        Script(words=40, bundle=7),
    ],
    ids=["comments", "crlf", "cut lines", "cut characters", "bundles"],
)
async def test_however_the_stream_is_cut_the_words_are_the_same(
    server: Providers, backend: OpenAIBackend, script: Script
) -> None:
    wanted = asked(parameters=Parameters(seed=1))
    server.queue(Script(words=40), script)
    whole = text_of(await all_of(backend, wanted))
    assert len(whole.split()) == 40
    assert text_of(await all_of(backend, wanted)) == whole


@pytest.mark.parametrize("fault", ["hang_early", "hang", "stall"])
async def test_a_cancel_reaches_a_provider_that_hangs(server: Providers, backend: OpenAIBackend, fault: Any) -> None:
    server.queue(Script(fault=fault))
    wanted = asked()
    running = asyncio.create_task(all_of(backend, wanted))
    await server.until(lambda: server.ledger[KEY].running == 1)
    cancelled_at = time.monotonic()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await server.until(lambda: server.ledger[KEY].running == 0)
    (entry,) = server.ledger[KEY].aborted
    assert entry.ended_at is not None
    # Within 250 ms wherever the machine has a core to spare; a provider that is not told notices nothing at all.
    assert entry.ended_at - cancelled_at < 5


@pytest.mark.parametrize("fault", ["hang_early", "hang", "stall"])
async def test_closing_ends_what_waits_for_a_provider_that_hangs(server: Providers, fault: Any) -> None:
    backend = OpenAIBackend(server.openai_url, slots=1)
    await backend.start(lambda doing, share: None)
    server.queue(Script(fault=fault))
    running = asyncio.create_task(all_of(backend, asked()))
    await server.until(lambda: server.ledger[KEY].running == 1)
    async with asyncio.timeout(5):
        await backend.close()
        (ended,) = await asyncio.gather(running, return_exceptions=True)
    assert isinstance(ended, BackendUnavailable)
    assert ended.reason == "engine_closed"
