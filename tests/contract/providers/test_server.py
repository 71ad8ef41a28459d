"""The server, asked by the providers' own SDKs: what they get of every answer and of every fault."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import sys
import zlib
from base64 import b64decode
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import httpx2
import openai
import pytest
from anthropic import AsyncAnthropic, AsyncAnthropicVertex
from openai import AsyncAzureOpenAI, AsyncOpenAI
from openai.types.chat import ChatCompletionChunk

from tests.providers.script import Call, Fault, Playbook, ReportedUsage, Script
from tests.providers.server import Providers, providers

GPT, CLAUDE = "gpt-4o-mini", "claude-haiku-4-5"
BEDROCK_CLAUDE = "anthropic.claude-opus-4-8"
ASK: list[Any] = [{"role": "user", "content": "Sing of the sea"}]
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
GPT_TOOLS: list[Any] = [{"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in ("f", "g")]
CLAUDE_TOOLS: list[Any] = [{"name": name, "input_schema": SCHEMA} for name in ("f", "g")]
USAGE = {"include_usage": True}


@pytest.fixture
async def server() -> AsyncIterator[Providers]:
    async with providers() as running:
        running.add_key("key")
        yield running


@pytest.fixture
async def gpt(server: Providers) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(api_key="key", base_url=server.openai_url, max_retries=0, timeout=20) as client:
        yield client


@pytest.fixture
async def claude(server: Providers) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(api_key="key", base_url=server.url, max_retries=0, timeout=20) as client:
        yield client


class Heard:
    """A stream of OpenAI's as its reader saw it."""

    def __init__(self) -> None:
        self.text = ""
        self.reasoning = ""
        self.calls: dict[int, list[str]] = {}
        self.finish: str | None = None
        self.usage: Any = None

    def take(self, chunk: ChatCompletionChunk) -> None:
        self.usage = chunk.usage or self.usage
        for choice in chunk.choices:
            self.finish = choice.finish_reason or self.finish
            self.text += choice.delta.content or ""
            self.reasoning += getattr(choice.delta, "reasoning_content", None) or ""
            for call in choice.delta.tool_calls or ():
                assert call.function is not None
                heard = self.calls.setdefault(call.index, [call.id or "", call.function.name or "", ""])
                heard[2] += call.function.arguments or ""


async def hear(client: AsyncOpenAI, heard: Heard | None = None, **parameters: Any) -> Heard:
    heard = heard or Heard()
    parameters = {"model": GPT, "messages": ASK, "stream": True, **parameters}
    stream = await client.chat.completions.create(**parameters)
    async for chunk in stream:
        heard.take(chunk)
    return heard


async def events(client: AsyncAnthropic, seen: list[Any] | None = None, **parameters: Any) -> list[Any]:
    seen = [] if seen is None else seen
    parameters = {"model": CLAUDE, "messages": ASK, "max_tokens": 64, "stream": True, **parameters}
    stream = await client.messages.create(**parameters)
    async for event in stream:
        seen.append(event)
    return seen


def text_of(seen: list[Any]) -> str:
    return "".join(
        event.delta.text for event in seen if getattr(getattr(event, "delta", None), "type", "") == "text_delta"
    )


async def test_an_answer_streams_and_is_billed_as_it_says(server: Providers, gpt: AsyncOpenAI) -> None:
    heard = await hear(gpt, stream_options=USAGE, extra_headers={"x-client-request-id": "g1"})
    [entry] = server.ledger["key"].asked
    assert heard.finish == "stop"
    assert heard.text == entry.text != ""
    assert (
        (heard.usage.prompt_tokens, heard.usage.completion_tokens)
        == (4, 16)
        == (entry.input_tokens, entry.output_tokens)
    )
    assert (entry.tag, entry.outcome, entry.status) == ("g1", "finished", 200)
    assert entry.reported["total_tokens"] == 20
    assert (server.ledger["key"].running, server.ledger["key"].peak) == (0, 1)


async def test_an_answer_in_one_body_says_the_same(server: Providers, gpt: AsyncOpenAI) -> None:
    whole = await gpt.chat.completions.create(model=GPT, messages=ASK, user="u1")
    assert whole.choices[0].message.content == (await hear(gpt)).text
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 16
    assert server.ledger["key"].asked[0].tag == "u1"


async def test_a_seed_says_the_same_again(gpt: AsyncOpenAI) -> None:
    texts = [(await hear(gpt, seed=seed)).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


async def test_an_answer_ends_at_its_limit_or_at_a_stop(
    server: Providers, gpt: AsyncOpenAI, claude: AsyncAnthropic
) -> None:
    server.default = Script(text="one two three four")
    short = await hear(gpt, max_completion_tokens=2, stream_options=USAGE)
    assert (short.text, short.finish, short.usage.completion_tokens) == ("one two", "length", 2)
    stopped = await hear(gpt, stop=["four", " three"])
    assert (stopped.text, stopped.finish) == ("one two", "stop")
    message = await claude.messages.create(model=CLAUDE, messages=ASK, max_tokens=2)
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 2)
    message = await claude.messages.create(model=CLAUDE, messages=ASK, max_tokens=9, stop_sequences=[" three"])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", " three")


async def test_tools_are_called_in_deltas_that_may_alternate(server: Providers, gpt: AsyncOpenAI) -> None:
    server.queue(Script(calls=(Call(), Call(arguments={"city": "Łódź, on the river"})), interleaved=True))
    heard = await hear(gpt, tools=GPT_TOOLS)
    assert heard.finish == "tool_calls"
    assert [(name, json.loads(arguments)) for _, name, arguments in heard.calls.values()] == [
        ("f", {"city": "words"}),
        ("g", {"city": "Łódź, on the river"}),
    ]
    forced = await hear(gpt, tools=GPT_TOOLS, tool_choice={"type": "function", "function": {"name": "g"}})
    assert [name for _, name, _ in forced.calls.values()] == ["g"]
    answered: Any = [
        *ASK,
        {
            "role": "assistant",
            "tool_calls": [
                {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
                for call_id, name, arguments in heard.calls.values()
            ],
        },
        *({"role": "tool", "tool_call_id": call_id, "content": "42"} for call_id, _, _ in heard.calls.values()),
    ]
    assert (await hear(gpt, tools=GPT_TOOLS, messages=answered)).text


async def test_claude_thinks_speaks_and_calls(server: Providers, claude: AsyncAnthropic) -> None:
    server.queue(Script(words=3, reasoning=5, calls=(Call(), Call()), cached=2, cache_written=1))
    async with claude.messages.stream(
        model=CLAUDE,
        messages=ASK,
        max_tokens=2048,
        tools=CLAUDE_TOOLS,
        thinking={"type": "enabled", "budget_tokens": 1024},
    ) as stream:
        message = await stream.get_final_message()
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert [block.input for block in message.content if block.type == "tool_use"] == [{"city": "words"}] * 2
    assert message.stop_reason == "tool_use"
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (1, 2, 1)
    [entry] = server.ledger["key"].asked
    assert (entry.input_tokens, entry.output_tokens) == (4, usage.output_tokens)
    results = [
        {"type": "tool_result", "tool_use_id": block.id, "content": "42"}
        for block in message.content
        if block.type == "tool_use"
    ]
    after: Any = [*ASK, message.to_param(), {"role": "user", "content": results}]
    assert text_of(await events(claude, messages=after, tools=CLAUDE_TOOLS))


async def test_reasoning_of_a_compatible_server(server: Providers, gpt: AsyncOpenAI) -> None:
    server.queue(Script(words=2, reasoning=3, cached=4))
    heard = await hear(gpt, stream_options=USAGE)
    assert len(heard.reasoning.split()) == 3
    assert heard.usage.completion_tokens == 5
    assert heard.usage.completion_tokens_details.reasoning_tokens == 3
    assert heard.usage.prompt_tokens_details.cached_tokens == 4


@pytest.mark.parametrize(
    ("fault", "error", "code"),
    [
        ("400", openai.BadRequestError, "invalid_value"),
        ("context", openai.BadRequestError, "context_length_exceeded"),
        ("401", openai.AuthenticationError, "invalid_api_key"),
        ("403", openai.PermissionDeniedError, "unsupported_country_region_territory"),
        ("404", openai.NotFoundError, "model_not_found"),
        ("429", openai.RateLimitError, "rate_limit_exceeded"),
        ("quota", openai.RateLimitError, "insufficient_quota"),
        ("500", openai.InternalServerError, None),
        ("503", openai.InternalServerError, "service_unavailable"),
        ("529", openai.InternalServerError, "overloaded"),
    ],
)
async def test_error_statuses_of_openai(
    server: Providers, gpt: AsyncOpenAI, fault: Fault, error: type[openai.APIStatusError], code: str | None
) -> None:
    server.queue(Script(fault=fault))
    with pytest.raises(error) as raised:
        await hear(gpt)
    assert raised.value.code == code
    assert raised.value.request_id
    assert "retry-after" not in raised.value.response.headers
    [entry] = server.ledger["key"].asked
    assert (entry.outcome, entry.status, entry.input_tokens) == ("failed", raised.value.status_code, 0)


@pytest.mark.parametrize(
    ("fault", "error", "kind"),
    [
        ("400", anthropic.BadRequestError, "invalid_request_error"),
        ("401", anthropic.AuthenticationError, "authentication_error"),
        ("403", anthropic.PermissionDeniedError, "permission_error"),
        ("404", anthropic.NotFoundError, "not_found_error"),
        ("429", anthropic.RateLimitError, "rate_limit_error"),
        ("quota", anthropic.APIStatusError, "billing_error"),
        ("500", anthropic.InternalServerError, "api_error"),
        ("529", anthropic.InternalServerError, "overloaded_error"),
    ],
)
async def test_error_statuses_of_anthropic(
    server: Providers, claude: AsyncAnthropic, fault: Fault, error: type[anthropic.APIStatusError], kind: str
) -> None:
    server.queue(Script(fault=fault, retry_after=3 if fault == "429" else None))
    with pytest.raises(error) as raised:
        await events(claude)
    body: Any = raised.value.body
    assert body["error"]["type"] == kind
    assert body["request_id"] == raised.value.request_id
    assert raised.value.response.headers.get("retry-after") == ("3" if fault == "429" else None)


async def test_retry_after_is_told_in_seconds_and_milliseconds(server: Providers, gpt: AsyncOpenAI) -> None:
    server.queue(Script(fault="429", retry_after=0.02))
    with pytest.raises(openai.RateLimitError) as raised:
        await hear(gpt)
    headers = raised.value.response.headers
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("1", "20")
    server.queue(Script(fault="429", retry_after=0.02))
    assert (await hear(gpt.with_options(max_retries=1))).finish == "stop"


@pytest.mark.parametrize(("fault", "tokens"), [("hang", 0), ("stall", 4)])
async def test_a_client_that_gives_up_on_a_silent_stream_is_noticed(
    server: Providers, gpt: AsyncOpenAI, claude: AsyncAnthropic, fault: Fault, tokens: int
) -> None:
    server.default = Script(fault=fault)
    for ask in (lambda: hear(gpt), lambda: events(claude)):
        asking = asyncio.create_task(ask())
        await server.until(
            lambda: [e.output_tokens for e in server.ledger["key"].asked if e.outcome == "running"] == [tokens]
        )
        # The opening has been sent, so it is the stream that is silent.
        await server.until(lambda: server.ledger["key"].asked[-1].last_write_at > 0)
        asking.cancel()
        await asyncio.wait([asking])
        await server.until(lambda: server.ledger["key"].running == 0)
        entry = server.ledger["key"].asked[-1]
        assert (entry.outcome, entry.input_tokens, entry.output_tokens) == ("aborted", 4, tokens)
        assert entry.noticed_s is not None


async def test_a_stream_that_is_closed_while_it_runs_is_noticed(server: Providers, gpt: AsyncOpenAI) -> None:
    server.queue(Script(words=10_000, token_s=0.01))
    stream = await gpt.chat.completions.create(model=GPT, messages=ASK, stream=True)
    await anext(stream)
    await stream.close()
    await server.until(lambda: len(server.ledger["key"].aborted) == 1)
    [entry] = server.ledger["key"].aborted
    assert 0 <= entry.output_tokens < 10_000
    assert entry.output_tokens == len(entry.text.split())


async def test_nothing_comes_at_all(server: Providers, gpt: AsyncOpenAI) -> None:
    server.queue(Script(fault="hang_early"))
    with pytest.raises(openai.APITimeoutError):
        await hear(gpt.with_options(timeout=0.2))
    await server.until(lambda: len(server.ledger["key"].aborted) == 1)
    assert server.ledger["key"].aborted[0].status is None


async def test_a_connection_that_is_cut_before_the_headers(
    server: Providers, gpt: AsyncOpenAI, claude: AsyncAnthropic
) -> None:
    server.default = Script(fault="cut_early")
    with pytest.raises(openai.APIConnectionError):
        await hear(gpt)
    with pytest.raises(anthropic.APIConnectionError):
        await events(claude)
    assert [entry.outcome for entry in server.ledger["key"].asked] == ["broken", "broken"]


@pytest.mark.parametrize("fault", ["cut", "reset"])
async def test_a_connection_that_is_cut_in_mid_stream(
    server: Providers, gpt: AsyncOpenAI, claude: AsyncAnthropic, fault: Fault
) -> None:
    server.default = Script(fault=fault, after=3)
    heard = Heard()
    with pytest.raises(openai.APIConnectionError):
        await hear(gpt, heard)
    assert heard.finish is None
    # Anthropic's SDK lets the transport's own error through.
    with pytest.raises((anthropic.APIConnectionError, httpx2.TransportError)):
        await events(claude)
    for entry in server.ledger["key"].asked:
        assert (entry.outcome, entry.input_tokens, entry.output_tokens) == ("broken", 4, 3)
    if fault == "cut":
        assert heard.text == server.ledger["key"].asked[0].text


@pytest.mark.parametrize(("fault", "words"), [("truncated", 4), ("no_end", 16)])
async def test_a_stream_that_just_ends_looks_whole_to_the_sdks(
    server: Providers, gpt: AsyncOpenAI, claude: AsyncAnthropic, fault: Fault, words: int
) -> None:
    server.default = Script(fault=fault)
    heard = await hear(gpt, stream_options=USAGE)
    assert len(heard.text.split()) == words
    assert (heard.finish, heard.usage) == (None, None)
    seen = await events(claude)
    assert len(text_of(seen).split()) == words
    assert seen[-1].type in {"content_block_delta", "content_block_stop"}
    assert [entry.outcome for entry in server.ledger["key"].asked] == ["broken", "broken"]


async def test_an_error_in_the_stream(server: Providers, gpt: AsyncOpenAI, claude: AsyncAnthropic) -> None:
    server.default = Script(fault="stream_error", after=2)
    heard = Heard()
    with pytest.raises(openai.APIError, match="The server had an error") as raised:
        await hear(gpt, heard)
    assert type(raised.value) is openai.APIError
    assert len(heard.text.split()) == 2
    seen: list[Any] = []
    with pytest.raises(anthropic.APIStatusError, match="Overloaded") as overloaded:
        await events(claude, seen)
    assert overloaded.value.status_code == 200
    assert len(text_of(seen).split()) == 2


@pytest.mark.parametrize("fault", ["cut", "reset", "truncated", "stream_error"])
async def test_an_answer_in_one_body_breaks_too(server: Providers, gpt: AsyncOpenAI, fault: Fault) -> None:
    server.queue(Script(fault=fault))
    with pytest.raises((openai.APIError, json.JSONDecodeError)):
        await gpt.chat.completions.create(model=GPT, messages=ASK)
    assert server.ledger["key"].asked[0].outcome == ("failed" if fault == "stream_error" else "broken")


@pytest.mark.parametrize(
    ("usage", "seen"),
    [
        ("short", 8),
        ("negative", -16),
        ("strings", 16),
        ("null", None),
        ("missing", None),
    ],
)
async def test_usage_may_be_wrong_and_the_ledger_is_not(
    server: Providers, gpt: AsyncOpenAI, usage: ReportedUsage, seen: object
) -> None:
    server.queue(Script(usage=usage))
    heard = await hear(gpt, stream_options=USAGE)
    # The SDK makes numbers of what is none where it can.
    assert (None if heard.usage is None else heard.usage.completion_tokens) == seen
    [entry] = server.ledger["key"].asked
    assert (entry.input_tokens, entry.output_tokens) == (4, 16)


@pytest.mark.parametrize(
    "script",
    [
        Script(comments=3, first_token_s=0.01),
        Script(crlf=True),
        Script(split="line"),
        Script(split="character", text="über Łódź 東京 🌍"),
        Script(bundle=5),
        Script(bundle=3, crlf=True, split="line"),
        Script(token_s=0.001),
    ],
    ids=["comments", "crlf", "line", "character", "bundle", "all", "pace"],
)
async def test_the_bytes_may_come_in_any_way(
    server: Providers, gpt: AsyncOpenAI, claude: AsyncAnthropic, script: Script
) -> None:
    server.default = script
    heard = await hear(gpt, stream_options=USAGE)
    seen = await events(claude)
    for text, entry in zip((heard.text, text_of(seen)), server.ledger["key"].asked, strict=True):
        assert text == entry.text != ""
        assert entry.output_tokens == len(text.split())
    assert heard.finish == "stop"
    assert seen[-1].type == "message_stop"


async def test_comments_and_line_endings_are_on_the_wire(server: Providers) -> None:
    server.queue(Script(comments=2, crlf=True, words=1))
    body = {"model": GPT, "messages": ASK, "stream": True}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{server.openai_url}/chat/completions", json=body, headers={"authorization": "Bearer key"}) as r,
    ):
        raw = await r.read()
    assert raw.count(b": OPENROUTER PROCESSING\r\n\r\n") == 2
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert raw.endswith(b"data: [DONE]\r\n\r\n")


async def test_keys(server: Providers) -> None:
    server.add_key("old", status="revoked")
    server.add_key("poor", status="no_quota")
    for key, error, code in (
        ("nobody's", openai.AuthenticationError, "invalid_api_key"),
        ("old", openai.AuthenticationError, "invalid_api_key"),
        ("poor", openai.RateLimitError, "insufficient_quota"),
    ):
        async with AsyncOpenAI(api_key=key, base_url=server.openai_url, max_retries=0) as client:
            with pytest.raises(error) as raised:
                await hear(client)
            assert raised.value.code == code
            assert server.ledger[key].asked[0].outcome == "refused"
    async with AsyncAnthropic(api_key="poor", base_url=server.url, max_retries=0) as client:
        with pytest.raises(anthropic.APIStatusError) as refused:
            await events(client)
        assert refused.value.status_code == 402


async def test_limits_are_held_and_told(server: Providers, gpt: AsyncOpenAI, claude: AsyncAnthropic) -> None:
    server.add_key("key", requests_per_minute=2, tokens_per_minute=1000)
    told = await gpt.chat.completions.with_raw_response.create(model=GPT, messages=ASK, max_tokens=30)
    assert told.headers["x-ratelimit-limit-requests"] == "2"
    assert told.headers["x-ratelimit-remaining-requests"] == "1"
    assert told.headers["x-ratelimit-remaining-tokens"] == str(1000 - 4 - 30)
    assert re.fullmatch(r"1m0s|\d+(\.\d+)?s", told.headers["x-ratelimit-reset-requests"])
    other = await claude.messages.with_raw_response.create(model=CLAUDE, messages=ASK, max_tokens=30)
    assert other.headers["anthropic-ratelimit-requests-remaining"] == "0"
    for name in ("requests", "tokens", "input-tokens", "output-tokens"):
        assert datetime.fromisoformat(other.headers[f"anthropic-ratelimit-{name}-reset"]).tzinfo is not None
    # What was not used of ``max_tokens`` came back: 4 and 16 of the first.
    assert other.headers["anthropic-ratelimit-tokens-remaining"] == str(1000 - 20 - 34)
    with pytest.raises(openai.RateLimitError) as over:
        await hear(gpt)
    assert over.value.code == "rate_limit_exceeded"
    assert 0 < int(over.value.response.headers["retry-after"]) <= 60
    with pytest.raises(anthropic.RateLimitError):
        await events(claude)
    assert (server.ledger["key"].over_limit, len(server.ledger["key"].asked)) == (2, 4)


async def test_a_window_passes(server: Providers, gpt: AsyncOpenAI) -> None:
    server.add_key("key", requests_per_minute=1, window_s=0.2)
    await hear(gpt)
    async with asyncio.timeout(10):
        while True:
            try:
                await hear(gpt)
            except openai.RateLimitError:
                continue
            break
    first, *refused, second = server.ledger["key"].asked
    assert {entry.outcome for entry in refused} <= {"over_limit"}
    assert second.at - first.at >= 0.2


async def test_requests_at_once_are_counted_and_limited(server: Providers, gpt: AsyncOpenAI) -> None:
    server.add_key("key", concurrent=3, script=Script(fault="hang"))
    asking = [asyncio.create_task(hear(gpt)) for _ in range(3)]
    await server.until(lambda: server.ledger["key"].running == 3)
    with pytest.raises(openai.RateLimitError):
        await hear(gpt)
    for task in asking:
        task.cancel()
    await asyncio.wait(asking)
    await server.until(lambda: server.ledger["key"].running == 0)
    assert server.ledger["key"].peak == 3
    server.queue(Script(), key="key")
    assert (await hear(gpt)).finish == "stop"


async def test_scripts_wait_for_their_key(server: Providers, gpt: AsyncOpenAI) -> None:
    server.add_key("other")
    server.queue(Script(text="for the other"), key="other")
    server.queue(Script(text="for anybody"))
    assert (await hear(gpt)).text == "for anybody"
    async with AsyncOpenAI(api_key="other", base_url=server.openai_url, max_retries=0) as client:
        assert (await hear(client)).text == "for the other"


def test_a_mix_is_drawn_from_its_seed() -> None:
    def drawn(seed: int) -> list[str | None]:
        playbook = Playbook(Script(), {"429": 0.2, "cut": 0.1}, random.Random(seed))
        return [playbook.next("key").fault for _ in range(500)]

    assert drawn(7) == drawn(7) != drawn(8)
    counts = {fault: drawn(7).count(fault) for fault in ("429", "cut", None)}
    assert counts["cut"] > 20
    assert counts["429"] > counts["cut"]
    assert counts[None] == 500 - counts["429"] - counts["cut"]
    with pytest.raises(ValueError, match="nonsense: no fault"):
        Playbook(Script(), {"nonsense": 0.5}, random.Random())


async def test_azure_names_the_model_in_the_path(server: Providers) -> None:
    async with AsyncAzureOpenAI(
        api_key="key", azure_endpoint=server.url, api_version="2024-10-21", max_retries=0
    ) as client:
        heard = await hear(client, stream_options=USAGE)
    [entry] = server.ledger["key"].asked
    assert (heard.text, heard.finish) == (entry.text, "stop")
    assert entry.path == f"/openai/deployments/{GPT}/chat/completions"
    assert entry.headers["api-key"] == "key"
    async with AsyncOpenAI(api_key="key", base_url=f"{server.url}/openai/v1", max_retries=0) as client:
        assert (await hear(client)).finish == "stop"
    async with AsyncAzureOpenAI(
        api_key="not a key", azure_endpoint=server.url, api_version="2024-10-21", max_retries=0
    ) as client:
        with pytest.raises(openai.AuthenticationError) as raised:
            await hear(client)
    assert raised.value.code == "401"


async def test_vertex_names_the_model_in_the_path(server: Providers) -> None:
    async with AsyncAnthropicVertex(
        region="europe-west1", project_id="p", access_token="key", base_url=server.openai_url, max_retries=0
    ) as client:
        seen: list[Any] = []
        stream = await client.messages.create(
            model="claude-haiku-4-5@20251001", messages=ASK, max_tokens=64, stream=True
        )
        async for event in stream:
            seen.append(event)
        whole = await client.messages.create(model="claude-haiku-4-5@20251001", messages=ASK, max_tokens=64)
    assert (
        text_of(seen)
        == server.ledger["key"].asked[0].text
        == "".join(b.text for b in whole.content if b.type == "text")
    )
    assert server.ledger["key"].asked[0].path.endswith("/models/claude-haiku-4-5@20251001:streamRawPredict")


def aws_events(raw: bytes) -> list[tuple[dict[str, str], Any]]:
    """Headers and payload of the messages of an AWS event stream, whose checksums must be right."""
    found = []
    while raw:
        total, of_headers = int.from_bytes(raw[:4]), int.from_bytes(raw[4:8])
        assert zlib.crc32(raw[:8]) == int.from_bytes(raw[8:12])
        assert zlib.crc32(raw[: total - 4]) == int.from_bytes(raw[total - 4 : total])
        headers, at = {}, 12
        while at < 12 + of_headers:
            name = raw[at + 1 : at + 1 + raw[at]].decode()
            at += 1 + raw[at]
            assert raw[at] == 7
            size = int.from_bytes(raw[at + 1 : at + 3])
            headers[name] = raw[at + 3 : at + 3 + size].decode()
            at += 3 + size
        found.append((headers, json.loads(raw[at : total - 4])))
        raw = raw[total:]
    return found


async def test_bedrock_wraps_the_events(server: Providers) -> None:
    body = {"anthropic_version": "bedrock-2023-05-31", "messages": ASK, "max_tokens": 64}
    signature = f"SignedHeaders=host;x-amz-date, Signature={'0' * 64}"
    scope = "20260101/us-east-1/bedrock/aws4_request"
    headers = {"authorization": f"AWS4-HMAC-SHA256 Credential=key/{scope}, {signature}"}
    url = f"{server.url}/model/{BEDROCK_CLAUDE}/invoke-with-response-stream"
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.post(url, json=body) as response:
            assert response.content_type == "application/vnd.amazon.eventstream"
            whole = aws_events(await response.read())
        server.queue(Script(fault="stream_error"), Script(fault="429"))
        async with session.post(url, json=body) as response:
            broken = aws_events(await response.read())
        async with session.post(url, json=body) as response:
            assert (response.status, response.headers["x-amzn-errortype"]) == (429, "ThrottlingException")
    sent = [json.loads(b64decode(payload["bytes"])) for _, payload in whole]
    assert sent[0]["type"] == "message_start"
    assert sent[-1]["amazon-bedrock-invocationMetrics"]["outputTokenCount"] == 16
    assert {headers[":event-type"] for headers, _ in whole} == {"chunk"}
    assert broken[-1][0][":message-type"] == "exception"
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
        assert response.status == 403
    older = f"{server.url}/model/anthropic.claude-haiku-4-5-20251001-v1:0/invoke"
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.post(older, json=body) as response:
            assert (await response.json())["usage"]["output_tokens"] == 16
        async with session.post(older, json=body | {"anthropic_version": "2026-10-21"}) as response:
            assert (response.status, response.headers["x-amzn-errortype"]) == (400, "ValidationException")


async def test_bedrocks_own_client(server: Providers) -> None:
    pytest.importorskip("botocore", reason="the SDK's Bedrock client needs botocore and boto3")
    async with anthropic.AsyncAnthropicBedrock(
        aws_access_key="key", aws_secret_key="s", aws_region="us-east-1", base_url=server.url, max_retries=0
    ) as client:
        seen: list[Any] = []
        stream = await client.messages.create(model=BEDROCK_CLAUDE, messages=ASK, max_tokens=64, stream=True)
        async for event in stream:
            seen.append(event)
    assert text_of(seen) == server.ledger["key"].asked[0].text


async def test_models_are_listed_to_those_with_a_key(server: Providers, gpt: AsyncOpenAI) -> None:
    assert GPT in [model.id async for model in gpt.models.list()]
    with pytest.raises(openai.AuthenticationError):
        await gpt.with_options(api_key="no").models.list()


async def test_a_process_of_its_own() -> None:
    root = Path(__file__).parents[3]
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.providers", "--port", "0", "--key", "bench", "--words", "5", "--concurrent", "9"),
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    try:
        async with asyncio.timeout(60):
            started = json.loads(await child.stdout.readline())
            url = f"http://127.0.0.1:{started['port']}"
            async with AsyncOpenAI(api_key="bench", base_url=f"{url}/v1", max_retries=0) as client:
                assert len((await hear(client)).text.split()) == 5
            async with aiohttp.ClientSession() as session, session.get(f"{url}/_ledger") as response:
                ledger = await response.json()
    finally:
        child.terminate()
        assert await child.wait() == 0
    assert ledger["bench"]["asked"][0]["outcome"] == "finished"
    assert "body" not in ledger["bench"]["asked"][0]
