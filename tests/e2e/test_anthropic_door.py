"""Anthropic's own SDK at Anthropic's door."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import anthropic
import pytest
from anthropic import AsyncAnthropic

from tests.clients.busy import Busy
from tests.e2e.client import Client, Json, eventually
from tests.e2e.conftest import Callers
from tests.e2e.running import Up
from tests.providers.script import Call, Script
from tests.providers.server import Providers, providers

pytestmark = pytest.mark.timeout(180)

ASK: Any = [{"role": "user", "content": "Why is the sky blue?"}]
SCRIPTED = "script"
VERSION = {"anthropic-version": "2023-06-01"}
WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather of a city now.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
PICTURE = "iVBORw0KGgo="


def scripted(**script: Any) -> Any:
    return {"script": json.dumps(script)}


ENDLESS = scripted(count=100_000, delay_s=0.02)


class Door:
    """The SDK of one caller, and the caller itself."""

    def __init__(self, sdk: AsyncAnthropic, caller: Client) -> None:
        self.sdk = sdk
        self.caller = caller

    async def create(self, **request: Any) -> Any:
        return await self.sdk.messages.create(**_asked(request))

    async def raw(self, **request: Any) -> Any:
        """With its headers."""
        return await self.sdk.messages.with_raw_response.create(**_asked(request))

    async def events(self, **request: Any) -> list[tuple[str, Json]]:
        """What stands on the wire: each event's name and data."""
        response = await self.caller.http.post("/v1/messages", json=_asked(request) | {"stream": True})
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.text.split("\n")
        names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
        told = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
        return list(zip(names, told, strict=True))


def _asked(request: dict[str, Any]) -> dict[str, Any]:
    return {"model": SCRIPTED, "messages": ASK, "max_tokens": 50} | request


@pytest.fixture
async def door(parley: Up, admin: Client) -> AsyncIterator[Door]:
    async with AsyncAnthropic(base_url=parley.url, api_key=admin.key, max_retries=0) as sdk:
        yield Door(sdk, admin)


async def test_an_answer(door: Door) -> None:
    found = await door.create(metadata=scripted(tokens=["a ", "b"]), system="Be brief.")
    assert (found.type, found.role, found.model) == ("message", "assistant", SCRIPTED)
    assert found.id.startswith("msg_")
    assert [one.model_dump(exclude_unset=True) for one in found.content] == [{"type": "text", "text": "a b"}]
    assert (found.stop_reason, found.stop_sequence) == ("end_turn", None)
    assert (found.usage.input_tokens, found.usage.output_tokens) == (7, 2)
    assert (found.usage.cache_creation_input_tokens, found.usage.cache_read_input_tokens) == (0, 0)
    cut_off = await door.create(max_tokens=2)
    assert (cut_off.stop_reason, cut_off.usage.output_tokens) == ("max_tokens", 2)


async def test_a_stop_sequence_is_told(door: Door) -> None:
    asked: Any = {"metadata": scripted(tokens=["a b", " END", " c"]), "stop_sequences": ["z", "END"]}
    key = {"Idempotency-Key": uuid4().hex}
    found = await door.create(**asked, extra_headers=key)
    assert (found.content[0].text, found.stop_reason, found.stop_sequence) == ("a b ", "stop_sequence", "END")
    events = await door.events(**asked)
    (ended,) = [told["delta"] for name, told in events if name == "message_delta"]
    assert ended == {"stop_reason": "stop_sequence", "stop_sequence": "END"}
    again = await door.create(**asked, extra_headers=key)
    assert (again.id, again.stop_sequence) == (found.id, "END")


async def test_a_bearer_token_opens_it_as_well(parley: Up, admin: Client) -> None:
    async with AsyncAnthropic(base_url=parley.url, auth_token=admin.key, max_retries=0) as sdk:
        found: Any = await sdk.messages.create(model=SCRIPTED, max_tokens=5, messages=ASK)
    assert found.usage.output_tokens == 5


async def test_a_stream_to_the_letter(door: Door) -> None:
    events = await door.events(metadata=scripted(tokens=["a ", "b"], delay_s=0.01))
    assert all(name == told["type"] for name, told in events)
    began, opened, ping, *deltas, closed, last, stopped = [told for _, told in events]
    message = began["message"]
    assert message.pop("id").startswith("msg_")
    assert message.pop("usage")["output_tokens"] == 0
    assert began == {
        "type": "message_start",
        "message": {
            "type": "message",
            "role": "assistant",
            "model": SCRIPTED,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
        },
    }
    block = {"type": "text", "text": ""}
    assert (opened, ping) == ({"type": "content_block_start", "index": 0, "content_block": block}, {"type": "ping"})
    assert {(one["type"], one["index"], one["delta"]["type"]) for one in deltas} == {
        ("content_block_delta", 0, "text_delta")
    }
    assert "".join(one["delta"]["text"] for one in deltas) == "a b"
    assert closed == {"type": "content_block_stop", "index": 0}
    usage = last.pop("usage")
    assert last == {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}}
    assert (usage["input_tokens"], usage["output_tokens"]) == (5, 2)
    assert stopped == {"type": "message_stop"}


async def test_the_sdks_own_stream(door: Door) -> None:
    asked = _asked({"metadata": scripted(tokens=["a ", "b"])})
    async with door.sdk.messages.stream(**asked) as stream:
        assert "".join([text async for text in stream.text_stream]) == "a b"
        found = await stream.get_final_message()
    assert (found.stop_reason, found.usage.input_tokens, found.usage.output_tokens) == ("end_turn", 5, 2)
    assert stream.request_id


async def test_the_caller_sees_its_limits_and_what_parley_calls_it(parley: Up, callers: Callers) -> None:
    tenant_id = await callers.tenant()
    caller = await callers.caller(tenant_id, "member")
    parley.parley("limits", "set", "--tenant", str(tenant_id), "--requests-per-minute", "2")
    async with AsyncAnthropic(base_url=parley.url, api_key=caller.key, max_retries=0) as sdk:
        door = Door(sdk, caller)
        raw = await door.raw(metadata={"user_id": "u-17", "ticket": "4711"})
        found = await raw.parse()
        await door.create()
        with pytest.raises(anthropic.RateLimitError) as refused:
            await door.create()
    assert found._request_id == raw.headers["request-id"] == raw.headers["x-request-id"]
    generation = await caller.ended(raw.headers["parley-generation-id"])
    assert found.id == f"msg_{generation['id']}"
    assert generation["metadata"] == {"user_id": "u-17", "ticket": "4711"}
    assert generation["conversation_id"] == raw.headers["parley-conversation-id"]
    limit = "anthropic-ratelimit-requests"
    assert (raw.headers[f"{limit}-limit"], raw.headers[f"{limit}-remaining"]) == ("2", "1")
    assert datetime.fromisoformat(raw.headers[f"{limit}-reset"]).tzinfo is not None
    assert refused.value.type == "rate_limit_error"
    headers = refused.value.response.headers
    assert int(headers["retry-after"]) >= 1
    assert headers[f"{limit}-remaining"] == "0"
    assert not any(name.startswith("x-ratelimit") for name in headers)


async def test_a_conversation_goes_on_where_it_is_named(door: Door) -> None:
    first = await door.raw(system="Be brief.", metadata=scripted(tokens=["Air."]))
    conversation_id = first.headers["parley-conversation-id"]
    resent: Any = [*ASK, {"role": "assistant", "content": "Air."}, {"role": "user", "content": "And at dusk?"}]
    by_header = await door.raw(
        system="Be brief.", messages=resent, extra_headers={"Parley-Conversation-Id": conversation_id}
    )
    assert by_header.headers["parley-conversation-id"] == conversation_id
    at_night = [{"role": "user", "content": "At night?"}]
    await door.create(messages=at_night, metadata={"conversation_id": conversation_id})

    async def said() -> list[str]:
        shown = await door.caller.get(f"/v1/conversations/{conversation_id}")
        return [one["content"] for one in shown["messages"] if one["role"] != "assistant"]

    assert await eventually(said, lambda found: len(found) == 4) == [
        "Be brief.",
        "Why is the sky blue?",
        "And at dusk?",
        "At night?",
    ]
    alone = await door.raw()
    assert alone.headers["parley-conversation-id"] != conversation_id


_SEEN = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE}}


@pytest.mark.parametrize(
    ("request_", "status", "kind", "where"),
    [
        ({"model": "claude-2"}, 404, "not_found_error", "model:"),
        ({"model": None}, 400, "invalid_request_error", "model:"),
        ({"messages": []}, 400, "invalid_request_error", "messages:"),
        ({"max_tokens": 0}, 400, "invalid_request_error", "max_tokens:"),
        ({"temperature": 1.5}, 400, "invalid_request_error", "temperature:"),
        ({"messages": [{"role": "user"}]}, 400, "invalid_request_error", "messages.0.content:"),
        (
            {"messages": [{"role": "user", "content": [{"type": "document"}]}]},
            400,
            "invalid_request_error",
            "messages.0.content.0: Input tag 'document'",
        ),
        ({"messages": [{"role": "user", "content": [_SEEN]}]}, 400, "invalid_request_error", "messages: script does"),
        ({"messages": [*ASK, {"role": "assistant", "content": "It"}]}, 400, "invalid_request_error", "messages:"),
        ({"tools": [WEATHER]}, 400, "invalid_request_error", "tools: script does not take tools"),
        ({"tools": [{"type": "web_search_20250305", "name": "w"}]}, 400, "invalid_request_error", "tools.0.type:"),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 1024}},
            400,
            "invalid_request_error",
            "thinking: script does not take",
        ),
        ({"stop_sequences": [""]}, 400, "invalid_request_error", "stop_sequences.0:"),
        ({"mcp_servers": []}, 400, "invalid_request_error", "mcp_servers:"),
        ({"metadata": {"conversation_id": "mine"}}, 400, "invalid_request_error", "metadata.conversation_id:"),
        ({"metadata": {"conversation_id": str(uuid4())}}, 404, "not_found_error", "There is no such conversation"),
    ],
)
async def test_what_is_wrong_is_told_in_anthropics_words(
    door: Door, request_: dict[str, Any], status: int, kind: str, where: str
) -> None:
    response = await door.caller.http.post("/v1/messages", json=_asked(request_))
    told = response.json()
    assert (response.status_code, told.keys()) == (status, {"type", "error", "request_id"}), response.text
    assert told["error"].keys() == {"type", "message"}
    assert (told["type"], told["error"]["type"]) == ("error", kind)
    assert told["error"]["message"].startswith(where)
    assert told["request_id"] == response.headers["request-id"]


async def test_who_asks_for_a_thread_is_told_to_do_without(door: Door) -> None:
    asked = _asked({"thread": {"type": "create"}})
    response = await door.caller.http.post("/v1/messages", params={"beta": "true"}, json=asked)
    assert response.status_code == 400
    assert response.json()["error"]["details"]["error_code"] == "thread_unsupported_request"


@pytest.mark.parametrize("content", [b"{", b"[]", b'"a"', b"\xff", b'{"messages": "\\ud800"}'])
async def test_what_is_no_request_is_told_so(door: Door, content: bytes) -> None:
    response = await door.caller.http.post(
        "/v1/messages", content=content, headers={"content-type": "application/json"}
    )
    assert (response.status_code, response.json()["error"]["type"]) == (400, "invalid_request_error"), response.text


async def test_keys_paths_and_sizes_are_refused_in_its_words(parley: Up, callers: Callers, door: Door) -> None:
    async with AsyncAnthropic(base_url=parley.url, api_key="sk-ant-wrong", max_retries=0) as sdk:
        with pytest.raises(anthropic.AuthenticationError) as unknown:
            await Door(sdk, door.caller).create()
    assert unknown.value.type == "authentication_error"
    auditor = await callers.caller(await callers.tenant(), "auditor")
    async with AsyncAnthropic(base_url=parley.url, api_key=auditor.key, max_retries=0) as sdk:
        with pytest.raises(anthropic.PermissionDeniedError) as forbidden:
            await Door(sdk, auditor).create()
    assert forbidden.value.type == "permission_error"
    with pytest.raises(anthropic.APIStatusError) as large:
        await door.create(messages=[{"role": "user", "content": "x" * 4_000_000}])
    assert (large.value.status_code, large.value.type) == (413, "request_too_large")
    for method, path, status in (
        ("GET", "/v1/messages", 405),
        ("GET", "/v1/messages/batches", 404),
        ("POST", "/v1/models", 405),
    ):
        response = await door.caller.http.request(method, path, headers=VERSION)
        assert (response.status_code, response.json()["type"]) == (status, "error"), response.text


async def test_a_generation_that_fails_is_an_error(door: Door) -> None:
    failing = scripted(fail_after=1, fail_kind="refused", fail_reason="invalid_request")
    with pytest.raises(anthropic.BadRequestError) as refused:
        await door.create(metadata=failing)
    assert refused.value.type == "invalid_request_error"
    name, told = (await door.events(metadata=failing))[-1]
    assert (name, told["error"]["type"]) == ("error", "invalid_request_error")
    with pytest.raises(anthropic.InternalServerError) as broken:
        await door.create(metadata=scripted(fail_after=0, fail_kind="refused", fail_reason="scripted_fault"))
    assert (broken.value.status_code, broken.value.type) == (500, "api_error")


async def test_a_restart_before_the_first_token_is_not_seen(door: Door) -> None:
    script = json.dumps([{"fail_after": 0}, {"tokens": ["whole"]}])
    events = [told for _, told in await door.events(metadata={"script": script})]
    assert [one["type"] for one in events].count("message_start") == 1
    assert "".join(one["delta"].get("text", "") for one in events if "delta" in one) == "whole"


async def test_a_restart_after_it_is_an_error_and_the_same_key_has_the_answer_whole(door: Door) -> None:
    script: Any = {"script": json.dumps([{"tokens": ["half"], "fail_after": 1, "delay_s": 0.3}, {"tokens": ["whole"]}])}
    asked = _asked({"metadata": script, "extra_headers": {"Idempotency-Key": str(uuid4())}})
    told: list[str] = []
    with pytest.raises(anthropic.APIStatusError) as broken:
        async with door.sdk.messages.stream(**asked) as stream:
            async for text in stream.text_stream:
                told.append(text)
    assert (broken.value.type, "".join(told)) == ("overloaded_error", "half")
    async with door.sdk.messages.stream(**asked) as stream:
        assert await stream.get_final_text() == "whole"


async def test_who_goes_away_stops_the_generation(door: Door) -> None:
    async with door.sdk.messages.stream(**_asked({"max_tokens": 100_000, "metadata": ENDLESS})) as stream:
        await anext(aiter(stream.text_stream))
        id = stream.current_message_snapshot.id
    assert (await door.caller.ended(id.removeprefix("msg_")))["status"] == "cancelled"


async def test_who_goes_away_from_an_answer_that_does_not_stream_stops_it_too(door: Door) -> None:
    asking = asyncio.create_task(door.create(max_tokens=10_000, metadata=ENDLESS))
    (listed,) = (
        await eventually(lambda: door.caller.get("/v1/conversations"), lambda found: bool(found["conversations"]))
    )["conversations"]
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    shown = await door.caller.get(f"/v1/conversations/{listed['id']}")
    assert (await door.caller.ended(shown["messages"][-1]["id"]))["status"] == "cancelled"


async def test_tokens_are_counted_without_asking(door: Door) -> None:
    few = await door.sdk.messages.count_tokens(model=SCRIPTED, messages=ASK)
    longer = [{"role": "user", "content": "Why is the sky blue? " * 20}]
    many = await door.sdk.messages.count_tokens(model=SCRIPTED, system="Be brief.", messages=longer)  # type: ignore[arg-type]
    assert 0 < few.input_tokens < 20
    assert many.input_tokens > few.input_tokens * 10
    assert (await door.caller.get("/v1/conversations"))["conversations"] == []
    with pytest.raises(anthropic.NotFoundError) as missing:
        await door.sdk.messages.count_tokens(model="claude-2", messages=ASK)
    assert missing.value.type == "not_found_error"
    with pytest.raises(anthropic.BadRequestError):
        await door.sdk.messages.count_tokens(model=SCRIPTED, messages=ASK, tools=[WEATHER])


async def test_models_are_anthropics_for_its_clients_and_openais_for_others(door: Door) -> None:
    listed = {model.id: model async for model in door.sdk.models.list()}
    assert {"script", "small", "nobody-asks", "gpt-4"} <= listed.keys()
    assert (listed["small"].type, listed["small"].display_name, listed["small"].max_input_tokens) == (
        "model",
        "small",
        60,
    )
    paged = [model.id async for model in door.sdk.models.list(limit=2)]
    assert paged == [*listed]
    back = await door.sdk.models.list(before_id=paged[3], limit=2)
    assert ([one.id for one in back.data], back.has_more, back.last_id) == (paged[1:3], True, paged[2])
    assert (await door.sdk.models.retrieve("gpt-4")).id == "gpt-4"
    with pytest.raises(anthropic.NotFoundError) as missing:
        await door.sdk.models.retrieve("claude-2")
    assert missing.value.type == "not_found_error"
    with pytest.raises(anthropic.BadRequestError):
        await door.sdk.models.list(after_id="claude-2")
    of_openai = await door.caller.get("/v1/models")
    assert of_openai["object"] == "list"
    assert {one["id"] for one in of_openai["data"]} > listed.keys(), "embedders are in OpenAI's list alone"
    unknown = await door.caller.http.get("/v1/models/claude-2")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


async def test_sdks_ask_again_where_it_helps_and_only_there(parley: Up, admin: Client) -> None:
    asked: list[int] = []

    async def note(response: Any) -> None:
        asked.append(response.status_code)

    async with AsyncExitStack() as held:
        http = await held.enter_async_context(anthropic.DefaultAsyncHttpxClient(event_hooks={"response": [note]}))
        sdk = AsyncAnthropic(base_url=parley.url, api_key=admin.key, max_retries=1, http_client=http)
        door, key = Door(sdk, admin), {"Idempotency-Key": str(uuid4())}
        await door.create(extra_headers=key)
        with pytest.raises(anthropic.ConflictError):
            await door.create(max_tokens=3, extra_headers=key)
        with pytest.raises(anthropic.InternalServerError):
            await door.create(metadata=scripted(fail_after=0, fail_kind="refused"))
    assert asked == [200, 409, 500, 500]


async def test_the_sdk_waits_for_a_place_by_itself(parley: Up, admin: Client) -> None:
    statuses: list[int] = []

    async def note(response: Any) -> None:
        statuses.append(response.status_code)

    async with (
        Busy.of(admin) as busy,
        anthropic.DefaultAsyncHttpxClient(event_hooks={"response": [note]}) as http,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(busy.free())
        sdk = AsyncAnthropic(base_url=parley.url, api_key=busy.key, max_retries=20, http_client=http)
        found = await Door(sdk, admin).create(metadata=scripted(tokens=["a"]))
    assert found.content[0].text == "a"
    assert statuses == [429] * (len(statuses) - 1) + [200]
    assert len(statuses) > 1


class World:
    """A Parley whose pools ask providers."""

    def __init__(self, server: Providers, door: Door) -> None:
        self.server = server
        self.door = door

    def heard(self, key: str) -> Json:
        """What the provider was asked last with that key."""
        body: Json = self.server.ledger[key].asked[-1].body
        return body


@pytest.fixture
async def world(short_folder: Path) -> AsyncIterator[World]:
    async with providers() as server:
        server.add_key("sk-claude")
        server.add_key("sk-gpt")
        pools = {
            "claude": {
                "backend": "anthropic",
                "base_url": server.url,
                "models": [{"claude": "claude-haiku-4-5"}],
                "keys": ["sk-claude"],
            },
            "gpt": {
                "backend": "openai",
                "base_url": server.openai_url,
                "models": [{"gpt": "gpt-4o-mini"}],
                "keys": ["sk-gpt"],
            },
        }
        up = Up(short_folder / "providers", PARLEY_POOLS=json.dumps(pools), PARLEY_DOORS__OPENAI="false")
        try:
            up.start()
            await asyncio.to_thread(up.ready)
            async with (
                AsyncAnthropic(base_url=up.url, api_key=up.admin_key, max_retries=0) as sdk,
                Client(up.url, up.admin_key) as caller,
            ):
                yield World(server, Door(sdk, caller))
            assert await asyncio.to_thread(up.stop) == 0
        finally:
            up.end()


async def test_tools_thinking_and_pictures_reach_providers_and_come_back(world: World) -> None:
    door = world.door
    for model, key in (("claude", "sk-claude"), ("gpt", "sk-gpt")):
        calls = (Call(arguments={"city": "Bonn"}), Call(arguments={"city": "Köln"}))
        question: list[Any] = [{"role": "user", "content": "How is the weather in Bonn and Köln?"}]
        request: Any = {"model": model, "max_tokens": 4000, "tools": [WEATHER], "tool_choice": {"type": "any"}}

        # The model asks for tools, streamed and whole.
        world.server.queue(Script(calls=calls, words=3), Script(calls=calls, words=3))
        async with door.sdk.messages.stream(messages=question, **request) as stream:
            told_of = [event.type async for event in stream]
            streamed: Any = await stream.get_final_message()
        assert (told_of.count("content_block_start"), told_of.count("content_block_stop")) == (3, 3)
        whole = await door.create(messages=question, **request)
        for found in (streamed, whole):
            assert found.stop_reason == "tool_use"
            said, *uses = found.content
            assert said.type == "text"
            assert [(one.name, one.input) for one in uses] == [
                ("get_weather", {"city": "Bonn"}),
                ("get_weather", {"city": "Köln"}),
            ]

        # What they said goes back with the next question, in the SDK's own objects.
        results = [
            {"type": "tool_result", "tool_use_id": whole.content[1].id, "content": "15 degrees"},
            {
                "type": "tool_result",
                "tool_use_id": whole.content[2].id,
                "content": [{"type": "text", "text": "no such city"}],
                "is_error": True,
            },
        ]
        rest = [{"role": "assistant", "content": whole.content}, {"role": "user", "content": results}]
        told = await door.create(messages=[*question, *rest], **request | {"tool_choice": {"type": "auto"}})
        assert told.stop_reason == "end_turn"
        heard = json.dumps(world.heard(key)["messages"])
        assert "15 degrees" in heard
        assert "Error: no such city" in heard

        # Pictures as they are and by URL, instructions, sampling, and where to stop.
        seen = [_SEEN, {"type": "image", "source": {"type": "url", "url": "https://example.com/cat.png"}}]
        await door.create(
            model=model,
            system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            messages=[{"role": "user", "content": [*seen, {"type": "text", "text": "What is it?"}]}],
            stop_sequences=["END"],
            extra_body={"temperature": 0.5},
        )
        body = world.heard(key)
        assert (body["temperature"], body.get("stop_sequences") or body.get("stop")) == (0.5, ["END"])
        assert PICTURE in json.dumps(body["messages"])
        assert "https://example.com/cat.png" in json.dumps(body["messages"])
        assert "Be brief." in json.dumps(body)

    # What it thought comes in a block of its own, unless the client does not want to see it.
    for thinking, kinds in (
        ({"type": "enabled", "budget_tokens": 1024}, ["thinking", "text"]),
        ({"type": "enabled", "budget_tokens": 1024, "display": "omitted"}, ["text"]),
    ):
        world.server.queue(Script(reasoning=3))
        thought = await door.create(model="claude", max_tokens=4000, thinking=thinking)
        assert [one.type for one in thought.content] == kinds
        assert world.heard("sk-claude")["thinking"]["type"] == "enabled"
    shape = {"type": "object", "properties": {}, "additionalProperties": False}
    world.server.queue(Script(text="{}"))
    shaped = await door.create(model="claude", output_config={"format": {"type": "json_schema", "schema": shape}})
    assert shaped.content[0].text == "{}"

    # OpenAI's door is shut, so its paths are there for Anthropic's clients only.
    assert {"claude", "gpt"} <= {one.id async for one in door.sdk.models.list()}
    assert (await door.caller.http.get("/v1/models")).status_code == 404
