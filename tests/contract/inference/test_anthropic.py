"""Claude's backend against a server that speaks Anthropic's API, Bedrock's and Vertex AI's forms of it, and fails in
every way. What every backend does is tested beside it."""

from __future__ import annotations

import asyncio
import json
import time
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aiohttp import web

from event_schemas.chat import ChatMessage, ImagePart, NamedTool, ResponseFormat, TextPart, Tool, ToolCall
from event_schemas.generation import Parameters
from tests.contract.inference.requests import request
from tests.providers.bedrock_wire import CONTENT_TYPE, message
from tests.providers.ledger import Entry
from tests.providers.model import Model
from tests.providers.script import Call, Fault, ReportedUsage, Script
from tests.providers.server import Providers, providers
from workers.inference.anthropic_messages import AnthropicBackend, Platform
from workers.inference.port import (
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

DEADLINE_S = 20.0
GONE_S = 5.0
"""In which the upstream's work has to stop beside other tests; 250 ms where the machine has a core to spare."""
SLOTS = 2
KEY = "sk-tests"
MODELS: dict[Platform, str] = {
    "anthropic": "claude-haiku-4-5",
    "bedrock": "anthropic.claude-haiku-4-5-20251001-v1:0",
    "vertex": "claude-haiku-4-5@20251001",
}
PLATFORMS = list(MODELS)
CITY = Tool(
    name="weather",
    description="of a city",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
TIME = Tool(name="time")
PIXEL = b64encode(b"\x89PNG").decode()


@pytest.fixture
async def server() -> AsyncIterator[Providers]:
    async with providers() as running:
        running.add_key(KEY)
        yield running


@asynccontextmanager
async def started(url: str, platform: Platform = "anthropic") -> AsyncIterator[AnthropicBackend]:
    if platform == "bedrock":
        pytest.importorskip("boto3", reason="the SDK's Bedrock client needs botocore and boto3")
    if platform == "vertex":
        pytest.importorskip("google.auth", reason="the SDK's Vertex client needs google-auth")
        url += "/v1"
    backend = AnthropicBackend(url, slots=SLOTS, platform=platform, region="us-east-1", project="p")
    await backend.start(lambda doing, share: None)
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield backend
    finally:
        await backend.close()


@pytest.fixture
async def claude(server: Providers) -> AsyncIterator[AnthropicBackend]:
    async with started(server.url) as backend:
        yield backend


def asking(
    *messages: ChatMessage | str,
    platform: Platform = "anthropic",
    parameters: Parameters | None = None,
    tools: tuple[Tool, ...] = (),
    response_format: ResponseFormat | None = None,
    model: str | None = None,
    key: str | None = KEY,
) -> InferenceRequest:
    made = request(*(messages or ("Sing of the sea",)), parameters=parameters or Parameters(max_tokens=64))
    return replace(
        made, model=model or MODELS[platform], tools=tools, response_format=response_format, key=key, attempt=3
    )


@dataclass
class Heard:
    limits: Limits | None = None
    text: str = ""
    reasoning: str = ""
    calls: dict[int, list[str]] = field(default_factory=dict)
    finished: Finished | None = None

    def take(self, item: Item) -> None:
        match item:
            case Limits():
                self.limits = item
            case Delta(text=text):
                self.text += text
            case Reasoning(text=text):
                self.reasoning += text
            case ToolCallDelta(number=number, id=None):
                self.calls[number][2] += item.arguments
            case ToolCallDelta(number=number, id=id, name=name):
                self.calls[number] = [id or "", name or "", item.arguments]
            case Finished():
                self.finished = item


async def hear(backend: AnthropicBackend, asked: InferenceRequest, heard: Heard | None = None) -> Heard:
    heard = heard or Heard()
    async for item in backend.generate(asked):
        assert heard.finished is None, "something came after Finished"
        heard.take(item)
    return heard


async def refused(backend: AnthropicBackend, asked: InferenceRequest, heard: Heard | None = None) -> BackendError:
    with pytest.raises(BackendError) as raised:
        await hear(backend, asked, heard)
    assert "sea" not in str(raised.value)
    return raised.value


def last(server: Providers, key: str = KEY) -> Entry:
    return server.ledger[key].asked[-1]


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_an_answer_and_what_it_cost(server: Providers, platform: Platform) -> None:
    server.default = Script(cached=2, cache_written=1)
    asked = asking("Sing of the sea", platform=platform, parameters=Parameters(temperature=0.5, top_p=0.9, top_k=3))
    async with started(server.url, platform) as backend:
        heard = await hear(backend, asked)
    entry = last(server)
    assert heard.text == entry.text != ""
    assert heard.finished == Finished("stop", 4, 16, cached_input_tokens=2)
    assert (entry.body["max_tokens"], entry.body["temperature"]) == (4096, 0.5)
    assert entry.headers["x-client-request-id"] == f"{asked.generation_id}.3"
    if platform == "anthropic":
        assert entry.headers["anthropic-version"] == "2023-06-01"
    else:
        assert (
            entry.body["anthropic_version"]
            == {"bedrock": "bedrock-2023-05-31", "vertex": "vertex-2023-10-16"}[platform]
        )


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("split", ["line", "character"])
async def test_events_come_in_any_segments(server: Providers, platform: Platform, split: Any) -> None:
    server.default = Script(split=split, crlf=platform == "vertex", bundle=3, text="łódź 東京 und 🌍", reasoning=3)
    async with started(server.url, platform) as backend:
        heard = await hear(backend, asking(platform=platform))
    assert (heard.text, len(heard.reasoning.split())) == ("łódź 東京 und 🌍", 3)


@pytest.mark.parametrize(
    ("fault", "kind", "reason"),
    [
        ("400", RequestRefused, "invalid_request"),
        ("401", KeyRefused, "key_refused"),
        ("403", KeyRefused, "key_refused"),
        ("404", RequestRefused, "unknown_model"),
        ("429", RateLimited, "rate_limited"),
        ("quota", KeyRefused, "key_exhausted"),
        ("500", NotServed, "provider_failed"),
        ("503", NotServed, "provider_failed"),
        ("529", NotServed, "provider_failed"),
        ("cut_early", BackendUnavailable, "provider_lost"),
        ("cut", BackendUnavailable, "provider_lost"),
        ("reset", BackendUnavailable, "provider_lost"),
        ("truncated", BackendUnavailable, "stream_cut"),
        ("no_end", BackendUnavailable, "stream_cut"),
        ("stream_error", BackendUnavailable, "provider_failed"),
    ],
)
@pytest.mark.parametrize("platform", PLATFORMS)
async def test_every_fault_has_its_name(
    server: Providers, platform: Platform, fault: Fault, kind: type[BackendError], reason: str
) -> None:
    if (platform, fault) == ("vertex", "quota"):
        kind, reason = RateLimited, "rate_limited"  # Google has one status for both.
    server.queue(Script(fault=fault))
    async with started(server.url, platform) as backend:
        error = await refused(backend, asking(platform=platform))
        assert (type(error), error.reason) == (kind, reason)
        assert isinstance(getattr(error, "retry_after_s", None), type(None))
        assert KEY not in str(error)
        assert (await hear(backend, asking(platform=platform))).finished is not None


async def test_how_long_to_wait_and_what_is_left(server: Providers, claude: AnthropicBackend) -> None:
    server.add_key(KEY, requests_per_minute=50, tokens_per_minute=10_000)
    heard = await hear(claude, asking())
    assert heard.limits is not None
    assert heard.limits.requests_reset_s is not None
    assert 0 < heard.limits.requests_reset_s <= 62
    assert (heard.limits.requests_per_minute, heard.limits.requests_left) == (50, 49)
    assert (heard.limits.tokens_per_minute, heard.limits.tokens_left) == (10_000, 10_000 - 4 - 64)
    server.queue(Script(fault="429", retry_after=7))
    limited = await refused(claude, asking())
    assert isinstance(limited, RateLimited)
    assert limited.retry_after_s == 7
    assert limited.limits is not None
    assert limited.limits.requests_left == 48


async def test_which_stop_sequence_it_was(server: Providers, claude: AnthropicBackend) -> None:
    server.default = Script(text="one two three")
    heard = await hear(claude, replace(asking("Count"), stop=(" four", " three")))
    assert heard.finished is not None
    assert (heard.text, heard.finished.finish_reason, heard.finished.stop) == ("one two", "stop", " three")
    whole = await hear(claude, replace(asking("Count"), stop=(" four",)))
    assert whole.finished is not None
    assert (whole.text, whole.finished.stop) == ("one two three", None)


async def test_a_key_without_limits_says_so_first(claude: AnthropicBackend) -> None:
    assert (await hear(claude, asking())).limits == Limits()


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("fault", ["hang_early", "hang", "stall"])
async def test_who_goes_away_stops_the_upstream(server: Providers, platform: Platform, fault: Fault) -> None:
    server.queue(Script(fault=fault))
    heard = Heard()
    async with started(server.url, platform) as backend:
        running = asyncio.create_task(hear(backend, asking(platform=platform), heard))
        await server.until(lambda: server.ledger[KEY].running == 1)
        if fault != "hang_early":
            await server.until(lambda: last(server).last_write_at > 0)
        running.cancel()
        left = time.monotonic()
        await asyncio.wait([running])
        assert running.cancelled()
        await server.until(lambda: server.ledger[KEY].running == 0)
        entry = last(server)
        assert entry.outcome == "aborted"
        assert entry.ended_at is not None
        assert entry.ended_at - left < GONE_S
        await asyncio.gather(*(hear(backend, asking(platform=platform)) for _ in range(SLOTS)))


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_closing_the_iterator_stops_the_upstream(server: Providers, platform: Platform) -> None:
    server.queue(Script(words=10_000, token_s=0.01))
    async with started(server.url, platform) as backend:
        items: AsyncGenerator[Item] = backend.generate(
            asking(platform=platform, parameters=Parameters(max_tokens=9999))
        )
        while not isinstance(await anext(items), Delta):
            pass
        left = time.monotonic()
        await items.aclose()
        await server.until(lambda: len(server.ledger[KEY].aborted) == 1)
        ended_at = last(server).ended_at
        assert ended_at is not None
        assert ended_at - left < GONE_S


async def test_two_tools_are_called(server: Providers, claude: AnthropicBackend) -> None:
    server.queue(Script(words=2, calls=(Call(arguments={"city": "Łódź"}), Call(name="time", arguments={}))))
    heard = await hear(claude, asking(tools=(CITY, TIME)))
    assert heard.finished is not None
    assert heard.finished.finish_reason == "tool_calls"
    assert len(heard.text.split()) == 2
    (first, second) = heard.calls.values()
    assert [(call[1], json.loads(call[2])) for call in (first, second)] == [("weather", {"city": "Łódź"}), ("time", {})]
    assert first[0].startswith("toolu_")
    assert first[0] != second[0]
    assert last(server).body["tools"][1] == {"name": "time", "input_schema": {"type": "object", "properties": {}}}


async def test_a_call_that_is_cut_off_gets_no_arguments_of_ours(server: Providers, claude: AnthropicBackend) -> None:
    server.queue(Script(words=2, calls=(Call(),)))
    heard = await hear(claude, asking(tools=(CITY,), parameters=Parameters(max_tokens=3)))
    assert heard.finished is not None
    assert heard.finished.finish_reason == "length"
    assert [call[1:] for call in heard.calls.values()] == [["weather", ""]]


@pytest.mark.parametrize(
    ("parameters", "sent", "called"),
    [
        (Parameters(tool_choice="auto"), {"type": "auto"}, []),
        (Parameters(tool_choice="none"), {"type": "none"}, []),
        (Parameters(tool_choice="none", parallel_tool_calls=False), {"type": "none"}, []),
        (Parameters(tool_choice="required"), {"type": "any"}, ["weather"]),
        (Parameters(tool_choice=NamedTool(name="time")), {"type": "tool", "name": "time"}, ["time"]),
        (Parameters(parallel_tool_calls=False), {"type": "auto", "disable_parallel_tool_use": True}, []),
        (Parameters(parallel_tool_calls=True), None, []),
    ],
)
async def test_which_tools_may_be_called(
    server: Providers, claude: AnthropicBackend, parameters: Parameters, sent: Any, called: list[str]
) -> None:
    heard = await hear(claude, asking(tools=(CITY, TIME), parameters=parameters))
    assert [call[1] for call in heard.calls.values()] == called
    assert last(server).body.get("tool_choice") == sent


async def test_a_conversation_with_all_that_there_is(server: Providers, claude: AnthropicBackend) -> None:
    calls = (
        ToolCall(id="call_1", name="weather", arguments='{"city": "Łódź"}'),
        ToolCall(id="call_2", name="time", arguments=""),
    )
    await hear(
        claude,
        asking(
            ChatMessage(role="system", content="Be brief."),
            ChatMessage(role="user", content=" "),
            ChatMessage(role="user", content="Hello"),
            ChatMessage(role="assistant", content="", tool_calls=calls),
            ChatMessage(role="tool", content="It rains.", tool_call_id="call_1"),
            ChatMessage(role="tool", content="", tool_call_id="call_2"),
            ChatMessage(
                role="user",
                content=(
                    TextPart(text="And here?"),
                    ImagePart(url="https://example.org/a.png"),
                    ImagePart(url=f"data:image/PNG;base64,{PIXEL}"),
                ),
            ),
            tools=(CITY, TIME),
        ),
    )
    assert last(server).body["system"] == [{"type": "text", "text": "Be brief."}]
    assert last(server).body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Łódź"}},
                {"type": "tool_use", "id": "call_2", "name": "time", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": [{"type": "text", "text": "It rains."}]},
                {"type": "tool_result", "tool_use_id": "call_2"},
                {"type": "text", "text": "And here?"},
                {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
            ],
        },
    ]


@pytest.mark.parametrize("platform", ["bedrock", "vertex"])
async def test_platforms_that_fetch_no_images_say_so(server: Providers, platform: Platform) -> None:
    image = ChatMessage(role="user", content=(ImagePart(url="https://example.org/a.png"),))
    async with started(server.url, platform) as backend:
        error = await refused(backend, asking(image, platform=platform))
    assert (type(error), error.reason) == (RequestRefused, "unsupported")
    assert "example.org" not in str(error)


async def test_json_by_a_schema(server: Providers, claude: AnthropicBackend) -> None:
    schema = ResponseFormat(json_schema={"type": "object", "properties": {"n": {"type": "integer"}}})
    assert json.loads((await hear(claude, asking(response_format=schema))).text) == {"n": 7}


@pytest.mark.parametrize(
    ("model", "sent"),
    [
        ("claude-haiku-4-5", {"thinking": {"type": "enabled", "budget_tokens": 8192}, "max_tokens": 4096 + 8192}),
        (
            "claude-opus-4-8",
            {
                "thinking": {"type": "adaptive", "display": "summarized"},
                "output_config": {"effort": "medium"},
                "max_tokens": 4096 + 8192,
            },
        ),
    ],
)
async def test_thinking(server: Providers, claude: AnthropicBackend, model: str, sent: dict[str, Any]) -> None:
    server.queue(Script(reasoning=5))
    heard = await hear(claude, asking(model=model, parameters=Parameters(reasoning_effort="medium")))
    assert len(heard.reasoning.split()) == 5
    assert heard.finished is not None
    assert heard.finished.output_tokens == 16 + 5
    body = last(server).body
    assert {name: body.get(name) for name in sent} == sent


@pytest.mark.parametrize("usage", ["negative", "null", "missing", "strings"])
async def test_counts_that_cannot_be_true_are_none(
    server: Providers, claude: AnthropicBackend, usage: ReportedUsage
) -> None:
    server.queue(Script(usage=usage))
    heard = await hear(claude, asking())
    assert heard.finished == Finished("stop", None, None)
    assert heard.text == last(server).text


async def test_something_said_for_no_tokens_is_not_counted(server: Providers, claude: AnthropicBackend) -> None:
    server.queue(Script(words=1, usage="short"))
    assert (await hear(claude, asking())).finished == Finished("stop", None, None)


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_a_prompt_that_does_not_fit_tells_the_window(server: Providers, platform: Platform) -> None:
    server.models[MODELS[platform]] = Model(context=100)
    async with started(server.url, platform) as backend:
        error = await refused(backend, asking("sea " * 101, platform=platform))
    assert (type(error), error.reason) == (RequestRefused, "context_length_exceeded")
    assert "the 100 tokens of the model" in str(error)


async def test_models_that_will_be_retired_raise_no_warning(server: Providers, claude: AnthropicBackend) -> None:
    """The SDK warns of them, and the tests make errors of warnings."""
    server.models["claude-sonnet-4-5"] = server.models["claude-opus-4-6"] = Model()
    for model in ("claude-sonnet-4-5", "claude-opus-4-6"):
        await hear(claude, asking(model=model, parameters=Parameters(reasoning_effort="low")))


async def test_half_a_character_is_refused(claude: AnthropicBackend) -> None:
    error = await refused(claude, asking("\ud83d"))
    assert (type(error), error.reason) == (RequestRefused, "invalid_request")


async def test_keys_of_bedrock(server: Providers, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("AKIA", "api-key", "ambient"):
        server.add_key(key)
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "ambient")
    async with started(server.url, "bedrock") as backend:
        await hear(backend, asking(platform="bedrock", key="AKIA:secret"))
        await hear(backend, asking(platform="bedrock", key="AKIA:secret:session"))
        await hear(backend, asking(platform="bedrock", key="api-key"))
        await hear(backend, asking(platform="bedrock", key="default"))
        assert (await refused(backend, asking(platform="bedrock", key=None))).reason == "key_refused"
    signed = server.ledger["AKIA"].asked
    assert [entry.headers.get("x-amz-security-token") for entry in signed] == [None, "session"]
    assert (len(server.ledger["api-key"].asked), len(server.ledger["ambient"].asked)) == (1, 1)


async def test_the_environments_key_is_taken_for_default_alone(
    server: Providers, claude: AnthropicBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add_key("ambient")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "ambient")
    assert (await refused(claude, asking(key=None))).reason == "key_refused"
    assert len(server.ledger["ambient"].asked) == 0
    await hear(claude, asking(key="default"))
    assert len(server.ledger["ambient"].asked) == 1


async def test_a_service_account_gets_itself_a_token(server: Providers) -> None:
    pytest.importorskip("google.auth", reason="the SDK's Vertex client needs google-auth")
    server.add_key("google-token")
    async with answering(200, b'{"access_token": "google-token", "expires_in": 3600}', "application/json") as google:
        account = await asyncio.to_thread(service_account, f"{google}/token")
        async with started(server.url, "vertex") as backend:
            for _ in range(2):
                await hear(backend, asking(platform="vertex", key=account))
    assert len(server.ledger["google-token"].asked) == 2


async def test_a_token_server_that_is_away_is_no_fault_of_the_key(server: Providers, unused_port: int) -> None:
    pytest.importorskip("google.auth", reason="the SDK's Vertex client needs google-auth")
    account = await asyncio.to_thread(service_account, f"http://127.0.0.1:{unused_port}/token")
    async with started(server.url, "vertex") as backend:
        error = await refused(backend, asking(platform="vertex", key=account))
    assert (type(error), error.reason) == (NotServed, "provider_unreachable")


@pytest.mark.parametrize("key", ["{", "{}", '{"type": "service_account", "private_key": "secret"}'])
async def test_what_is_no_service_account_is_refused(server: Providers, key: str) -> None:
    async with started(server.url, "vertex") as backend:
        error = await refused(backend, asking(platform="vertex", key=key))
    assert (type(error), error.reason) == (KeyRefused, "key_refused")
    assert "secret" not in str(error)


def service_account(token_uri: str) -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    private = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return json.dumps(
        {
            "type": "service_account",
            "client_email": "tests@p.iam.gserviceaccount.com",
            "private_key": private.decode(),
            "token_uri": token_uri,
        }
    )


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


async def test_nobody_listens(unused_port: int) -> None:
    async with started(f"http://127.0.0.1:{unused_port}") as backend:
        error = await refused(backend, asking())
    assert (type(error), error.reason) == (NotServed, "provider_unreachable")


@asynccontextmanager
async def answering(
    status: int, body: bytes, content_type: str = "text/event-stream", headers: dict[str, str] | None = None
) -> AsyncIterator[str]:
    """The URL of a server that answers just this to everything."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, body=body, headers={"content-type": content_type, **(headers or {})})

    application = web.Application()
    application.router.add_post("/{path:.*}", answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def event(data: Any) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


def chunk(payload: bytes) -> bytes:
    return message({":message-type": "event", ":event-type": "chunk"}, payload)


START = event({"type": "message_start", "message": {"usage": {"input_tokens": 1}}})


NO_ROOM = event({"type": "error", "error": {"type": "rate_limit_error", "message": "the sea"}})
OVERLOADED = event({"type": "error", "error": {"type": "overloaded_error"}})
THROTTLED = message({":message-type": "exception", ":exception-type": "throttlingException"}, b"{}")


@pytest.mark.parametrize(
    ("platform", "body", "kind", "reason"),
    [
        ("anthropic", START + b"data: nonsense\n\n", BackendUnavailable, "bad_stream"),
        ("anthropic", START + b"data: [1]\n\n", BackendUnavailable, "bad_stream"),
        ("anthropic", START + event({"type": "content_block_delta", "index": 0}), BackendUnavailable, "bad_stream"),
        ("anthropic", START + event({"type": "message_stop"}), BackendUnavailable, "stream_cut"),
        ("anthropic", START + event({"type": "error", "error": "the sea"}), BackendUnavailable, "provider_failed"),
        ("anthropic", START + NO_ROOM, BackendUnavailable, "provider_failed"),
        ("anthropic", NO_ROOM, RateLimited, "rate_limited"),
        ("anthropic", OVERLOADED, NotServed, "provider_failed"),
        ("bedrock", THROTTLED, RateLimited, "rate_limited"),
        (
            "bedrock",
            message({":message-type": "error", ":error-code": "Internal"}, b"{}"),
            NotServed,
            "provider_failed",
        ),
        ("bedrock", b"x" * 64, BackendUnavailable, "bad_stream"),
        ("bedrock", chunk(b"{}"), BackendUnavailable, "bad_stream"),
        ("bedrock", chunk(b'{"bytes": "bm9uc2Vuc2U="}'), BackendUnavailable, "bad_stream"),
        ("bedrock", message({":message-type": "event", ":event-type": "x"}, b"{}"), BackendUnavailable, "stream_cut"),
    ],
)
async def test_streams_that_end_otherwise(
    platform: Platform, body: bytes, kind: type[BackendError], reason: str
) -> None:
    """Where an answer had begun, another key is not asked for it."""
    content_type = CONTENT_TYPE if platform == "bedrock" else "text/event-stream"
    async with answering(200, body, content_type) as url, started(url, platform) as backend:
        error = await refused(backend, asking(platform=platform))
    assert (type(error), error.reason) == (kind, reason)


def problem(kind: str, said: str, **details: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": said, **({"details": details} if details else {})}}


SPENT = "Your credit balance is too low to access the sea"
LIMITED = "You have reached your specified API usage limits. You will sea"
TOO_MUCH = "input length and `max_tokens` exceed context limit: 199 + 9 > 200, the sea"


@pytest.mark.parametrize(
    ("status", "body", "errortype", "reason", "shown"),
    [
        (400, problem("invalid_request_error", SPENT), "", "key_exhausted", "HTTP 400"),
        (400, problem("invalid_request_error", LIMITED), "", "key_exhausted", "HTTP 400"),
        (
            429,
            problem("rate_limit_error", "no", error_code="enforced_spend_limit_reached"),
            "",
            "key_exhausted",
            "spend",
        ),
        (402, problem("billing_error", "no"), "", "key_exhausted", "billing_error"),
        (400, problem("invalid_request_error", TOO_MUCH), "", "context_length_exceeded", "the 200 tokens"),
        (400, problem("invalid_request_error", "temperature: the sea"), "", "invalid_request", "at temperature"),
        (413, problem("request_too_large", "the sea"), "", "request_too_large", "HTTP 413"),
        (400, {"message": "Input is too long for it."}, "ValidationException:http://a/", "context_length_exceeded", ""),
        (424, {"message": "the sea"}, "ModelErrorException", "provider_failed", "ModelErrorException"),
        (
            429,
            [{"error": {"message": "sea", "status": "RESOURCE_EXHAUSTED"}}],
            "",
            "rate_limited",
            "RESOURCE_EXHAUSTED",
        ),
        (502, "the sea", "", "provider_failed", "HTTP 502"),
        (400, {"error": "the sea"}, "", "invalid_request", "HTTP 400"),
        (404, {"error": {"type": "the sea", "message": 4}}, "", "unknown_model", "HTTP 404"),
    ],
)
async def test_error_bodies_of_every_platform(status: int, body: Any, errortype: str, reason: str, shown: str) -> None:
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    kind = "text/html" if isinstance(body, str) else "application/json"
    async with answering(status, data, kind, {"x-amzn-errortype": errortype}) as url, started(url) as backend:
        error = await refused(backend, asking())
    assert error.reason == reason
    assert shown in str(error)


async def test_a_platform_says_what_it_needs() -> None:
    with pytest.raises(ValueError, match="bedrock needs a region"):
        AnthropicBackend(None, slots=1, platform="bedrock")
    with pytest.raises(ValueError, match="vertex needs a project"):
        AnthropicBackend(None, slots=1, platform="vertex", region="global")


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize(("fault", "tokens"), [("hang_early", 0), ("hang", 0), ("stall", 4)])
async def test_closing_the_backend_ends_whoever_waits(
    server: Providers, platform: Platform, fault: Fault, tokens: int
) -> None:
    server.queue(Script(fault=fault))
    async with started(server.url, platform) as backend:
        running = asyncio.create_task(hear(backend, asking(platform=platform)))
        await server.until(lambda: server.ledger[KEY].running == 1 and last(server).output_tokens == tokens)
        if fault != "hang_early":
            await server.until(lambda: last(server).last_write_at > 0)
        await backend.close()
        [ended] = await asyncio.gather(running, return_exceptions=True)
        assert isinstance(ended, BackendUnavailable)
        assert ended.reason == "engine_closed"
