"""OpenAI's own SDK at OpenAI's door."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from tests.clients.busy import Busy
from tests.e2e.client import Client, eventually
from tests.e2e.conftest import Callers
from tests.e2e.running import Up

pytestmark = pytest.mark.timeout(120)

ASK: Any = [{"role": "user", "content": "Why is the sky blue?"}]
SCRIPTED = "script"


def scripted(**script: Any) -> dict[str, str]:
    return {"script": json.dumps(script)}


ENDLESS = scripted(count=100_000, delay_s=0.02)


class Door:
    """The SDK of one caller, and the caller itself."""

    def __init__(self, sdk: AsyncOpenAI, caller: Client) -> None:
        self.sdk = sdk
        self.caller = caller

    async def stream(self, **request: Any) -> list[Any]:
        """All chunks."""
        asked = {"model": SCRIPTED, "messages": ASK} | request
        return [chunk async for chunk in await self.sdk.chat.completions.create(stream=True, **asked)]

    async def lines(self, path: str = "/v1/chat/completions", **request: Any) -> list[str]:
        """What stands on the wire, event by event."""
        asked = {"model": SCRIPTED, "messages": ASK, "stream": True} | request
        response = await self.caller.http.post(path, json=asked)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/event-stream")
        return [line.removeprefix("data: ") for line in response.text.split("\n") if line.startswith("data: ")]


@pytest.fixture
async def door(parley: Up, admin: Client) -> AsyncIterator[Door]:
    async with AsyncOpenAI(base_url=f"{parley.url}/v1", api_key=admin.key, max_retries=0) as sdk:
        yield Door(sdk, admin)


async def test_an_answer(door: Door) -> None:
    found = await door.sdk.chat.completions.create(
        model=SCRIPTED, messages=ASK, max_completion_tokens=5, metadata=scripted(tokens=["a ", "b"])
    )
    assert found.object == "chat.completion"
    assert found.id.startswith("chatcmpl-")
    assert found.model == SCRIPTED
    (choice,) = found.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "a b", "stop")
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_tokens) == (5, 2, 7)


async def test_a_stream_to_the_letter(door: Door) -> None:
    lines = await door.lines(metadata=scripted(tokens=["a ", "b"]))
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    assert {(one["id"], one["object"], one["model"], one["created"]) for one in chunks} == {
        (chunks[0]["id"], "chat.completion.chunk", SCRIPTED, chunks[0]["created"])
    }
    assert not any("usage" in one for one in chunks)
    deltas = [one["choices"][0]["delta"] for one in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(one["content"] for one in deltas[1:-1]) == "a b"
    assert deltas[-1] == {}
    assert [one["choices"][0]["finish_reason"] for one in chunks] == [None] * (len(chunks) - 1) + ["stop"]


async def test_usage_comes_in_a_chunk_of_its_own_where_it_is_asked_for(door: Door) -> None:
    lines = await door.lines(stream_options={"include_usage": True}, metadata=scripted(tokens=["a"]))
    *others, last = [json.loads(line) for line in lines[:-1]]
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 6
    assert all(one["usage"] is None for one in others)


async def test_several_answers_to_one_question(door: Door) -> None:
    found = await door.sdk.chat.completions.create(model=SCRIPTED, messages=ASK, n=3, metadata=scripted(tokens=["a"]))
    assert [(one.index, one.message.content) for one in found.choices] == [(0, "a"), (1, "a"), (2, "a")]
    assert found.usage is not None
    assert found.usage.completion_tokens == 3
    chunks = await door.stream(n=3, metadata=scripted(tokens=["a", "b"], delay_s=0.01))
    said = {0: "", 1: "", 2: ""}
    for chunk in chunks:
        (choice,) = chunk.choices
        said[choice.index] += choice.delta.content or ""
    assert said == {0: "ab", 1: "ab", 2: "ab"}
    assert sorted(one.choices[0].index for one in chunks if one.choices[0].finish_reason == "stop") == [0, 1, 2]


async def test_no_answer_is_left_running_where_one_of_several_is_refused(parley: Up, callers: Callers) -> None:
    tenant_id = await callers.tenant()
    caller = await callers.caller(tenant_id, "member")
    parley.parley("limits", "set", "--tenant", str(tenant_id), "--requests-per-minute", "2")
    async with AsyncOpenAI(base_url=f"{parley.url}/v1", api_key=caller.key, max_retries=0) as sdk:
        with pytest.raises(openai.RateLimitError) as refused:
            await sdk.chat.completions.create(model=SCRIPTED, messages=ASK, n=3, metadata=ENDLESS)
    assert refused.value.code == "rate_limit_exceeded"
    assert int(refused.value.response.headers["retry-after"]) >= 1
    assert refused.value.response.headers["x-ratelimit-limit-requests"] == "2"
    listed = await eventually(lambda: caller.get("/v1/conversations"), lambda found: len(found["conversations"]) == 2)
    for one in listed["conversations"]:
        found = await caller.get(f"/v1/conversations/{one['id']}")
        assert (await caller.ended(found["messages"][-1]["id"]))["status"] == "cancelled"


async def test_how_the_limits_stand_is_told_with_each_answer(parley: Up, callers: Callers) -> None:
    tenant_id = await callers.tenant()
    caller = await callers.caller(tenant_id, "member")
    limits = ("--requests-per-minute", "5", "--tokens-per-minute", "5000")
    parley.parley("limits", "set", "--tenant", str(tenant_id), *limits)
    for left, stream in ((4, False), (3, True)):
        answer = await caller.http.post(
            "/v1/chat/completions", json={"model": SCRIPTED, "messages": ASK, "stream": stream}
        )
        assert answer.status_code == 200, answer.text
        told = {name: value for name, value in answer.headers.items() if name.startswith("x-ratelimit-")}
        assert (told["x-ratelimit-limit-requests"], told["x-ratelimit-remaining-requests"]) == ("5", str(left))
        assert told["x-ratelimit-limit-tokens"] == "5000"
        assert 0 < int(told["x-ratelimit-remaining-tokens"]) < 5000
        assert all(told[f"x-ratelimit-reset-{kind}"].endswith("s") for kind in ("requests", "tokens"))


async def test_the_caller_sees_what_parley_calls_it(door: Door) -> None:
    raw = await door.sdk.chat.completions.with_raw_response.create(
        model=SCRIPTED, messages=ASK, user="u-17", metadata={"ticket": "4711"}
    )
    found = raw.parse()
    generation = await door.caller.ended(raw.headers["parley-generation-id"])
    assert found.id == f"chatcmpl-{generation['id']}"
    assert generation["metadata"] == {"ticket": "4711", "user": "u-17"}
    assert generation["conversation_id"] == raw.headers["parley-conversation-id"]
    assert raw.headers["x-request-id"]


async def test_a_conversation_goes_on_where_it_is_named(door: Door) -> None:
    first = await door.sdk.chat.completions.with_raw_response.create(
        model=SCRIPTED, messages=[{"role": "system", "content": "Be brief."}, *ASK], metadata=scripted(tokens=["Air."])
    )
    conversation_id = first.headers["parley-conversation-id"]
    resent: Any = [
        {"role": "system", "content": "Be brief."},
        *ASK,
        {"role": "assistant", "content": "Air."},
        {"role": "user", "content": "And at dusk?"},
    ]
    by_header = await door.sdk.chat.completions.with_raw_response.create(
        model=SCRIPTED, messages=resent, extra_headers={"Parley-Conversation-Id": conversation_id}
    )
    assert by_header.headers["parley-conversation-id"] == conversation_id
    await door.sdk.chat.completions.create(
        model=SCRIPTED,
        messages=[{"role": "user", "content": "At night?"}],
        metadata={"conversation_id": conversation_id},
    )

    async def said() -> list[str]:
        shown = await door.caller.get(f"/v1/conversations/{conversation_id}")
        return [one["content"] for one in shown["messages"] if one["role"] != "assistant"]

    assert await eventually(said, lambda found: len(found) == 4) == [
        "Be brief.",
        "Why is the sky blue?",
        "And at dusk?",
        "At night?",
    ]
    alone = await door.sdk.chat.completions.with_raw_response.create(model=SCRIPTED, messages=ASK)
    assert alone.headers["parley-conversation-id"] != conversation_id


@pytest.mark.parametrize(
    ("request_", "status", "error"),
    [
        ({"model": "gpt-17"}, 404, {"type": "not_found_error", "code": "model_not_found", "param": "model"}),
        ({"messages": []}, 400, {"type": "invalid_request_error", "code": "invalid_request", "param": "messages"}),
        ({"temperature": 3}, 400, {"type": "invalid_request_error", "param": "temperature"}),
        ({"messages": [{"role": "user"}]}, 400, {"type": "invalid_request_error", "param": "messages[0]"}),
        ({"n": 2, "metadata": {"conversation_id": str(uuid4())}}, 400, {"param": "n"}),
        ({"metadata": {"conversation_id": "mine"}}, 400, {"param": "metadata.conversation_id"}),
        ({"metadata": {"conversation_id": str(uuid4())}}, 404, {"type": "not_found_error"}),
        ({"functions": []}, 400, {"param": "functions"}),
        ({"logprobs": True}, 400, {"param": "logprobs", "code": "unsupported_by_model"}),
    ],
    ids=["model", "messages", "temperature", "message", "n", "no id", "no conversation", "unknown", "unsupported"],
)
async def test_what_is_wrong_is_told_in_openais_words(
    door: Door, request_: dict[str, Any], status: int, error: dict[str, str]
) -> None:
    response = await door.caller.http.post("/v1/chat/completions", json={"model": SCRIPTED, "messages": ASK} | request_)
    told = response.json()
    assert (response.status_code, told.keys()) == (status, {"error"}), response.text
    assert told["error"].keys() == {"message", "type", "param", "code"}
    assert told["error"] | error == told["error"]
    assert told["error"]["message"]


@pytest.mark.parametrize("content", [b"{", b"[]", b'"a"', b"\xff", b'{"messages": "\\ud800"}'])
async def test_what_is_no_request_is_told_so(door: Door, content: bytes) -> None:
    response = await door.caller.http.post(
        "/v1/chat/completions", content=content, headers={"content-type": "application/json"}
    )
    assert (response.status_code, response.json()["error"]["type"]) == (400, "invalid_request_error"), response.text


async def test_what_is_not_there_and_what_is_too_large_is_told_so_as_well(door: Door) -> None:
    wrong_method = await door.caller.http.get("/v1/chat/completions")
    assert (wrong_method.status_code, wrong_method.json()["error"]["code"]) == (405, "method_not_allowed")
    large = [{"role": "user", "content": "x" * 2_000_000}]
    with pytest.raises(openai.APIStatusError) as refused:
        await door.sdk.chat.completions.create(model=SCRIPTED, messages=large)  # type: ignore[arg-type]
    assert (refused.value.status_code, refused.value.code) == (413, "too_large")


async def test_a_wrong_key_is_told_so(parley: Up) -> None:
    async with AsyncOpenAI(base_url=f"{parley.url}/v1", api_key="sk-wrong", max_retries=0) as sdk:
        with pytest.raises(openai.AuthenticationError) as refused:
            await sdk.models.list()
    assert refused.value.code == "invalid_api_key"


async def test_a_generation_that_fails_is_an_error(door: Door) -> None:
    failing = scripted(fail_after=1, fail_kind="refused", fail_reason="invalid_request")
    with pytest.raises(openai.BadRequestError) as refused:
        await door.sdk.chat.completions.create(model=SCRIPTED, messages=ASK, metadata=failing)
    assert refused.value.code == "invalid_request"
    with pytest.raises(openai.APIError) as broken:
        await door.stream(metadata=failing)
    assert broken.value.code == "invalid_request"


async def test_a_restart_before_the_first_token_is_not_seen(door: Door) -> None:
    script = json.dumps([{"fail_after": 0}, {"tokens": ["whole"]}])
    chunks = await door.stream(metadata={"script": script})
    assert "".join(one.choices[0].delta.content or "" for one in chunks) == "whole"


async def test_a_restart_after_it_is_an_error_and_the_same_key_has_the_answer_whole(door: Door) -> None:
    key = {"Idempotency-Key": str(uuid4())}
    script = json.dumps([{"tokens": ["half"], "fail_after": 1, "delay_s": 0.3}, {"tokens": ["whole"]}])
    told: list[str] = []
    with pytest.raises(openai.APIError) as broken:
        stream = await door.sdk.chat.completions.create(
            model=SCRIPTED, messages=ASK, stream=True, metadata={"script": script}, extra_headers=key
        )
        async for chunk in stream:
            told.append(chunk.choices[0].delta.content or "")
    assert (broken.value.code, "".join(told)) == ("begun_again", "half")
    again = await door.sdk.chat.completions.create(
        model=SCRIPTED, messages=ASK, stream=True, metadata={"script": script}, extra_headers=key
    )
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in again]) == "whole"


async def test_who_goes_away_stops_the_generation(door: Door) -> None:
    stream = await door.sdk.chat.completions.create(model=SCRIPTED, messages=ASK, stream=True, metadata=ENDLESS)
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    await stream.close()
    assert (await door.caller.ended(chunk.id.removeprefix("chatcmpl-")))["status"] == "cancelled"


async def test_who_goes_away_from_an_answer_that_does_not_stream_stops_it_too(door: Door) -> None:
    asking = asyncio.create_task(door.sdk.chat.completions.create(model=SCRIPTED, messages=ASK, metadata=ENDLESS))
    (listed,) = (
        await eventually(lambda: door.caller.get("/v1/conversations"), lambda found: bool(found["conversations"]))
    )["conversations"]
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    shown = await door.caller.get(f"/v1/conversations/{listed['id']}")
    assert (await door.caller.ended(shown["messages"][-1]["id"]))["status"] == "cancelled"


async def test_what_is_to_be_stored_goes_on(door: Door) -> None:
    stream = await door.sdk.chat.completions.create(
        model=SCRIPTED, messages=ASK, stream=True, store=True, metadata=scripted(count=20, delay_s=0.02)
    )
    chunk = await anext(aiter(stream))
    await stream.close()
    assert (await door.caller.ended(chunk.id.removeprefix("chatcmpl-")))["status"] == "completed"


@pytest.mark.parametrize("store", [True, False])
async def test_who_is_cut_off_has_the_answer_by_its_key_where_it_was_to_be_stored(door: Door, store: bool) -> None:
    asked: Any = {
        "model": SCRIPTED,
        "messages": ASK,
        "store": store,
        "metadata": scripted(tokens=["a", "b", "c"] * 10, delay_s=0.02 if store else 1.0),
        "extra_headers": {"Idempotency-Key": str(uuid4())},
    }
    stream = await door.sdk.chat.completions.create(stream=True, **asked)
    chunk = await anext(aiter(stream))
    await stream.close()
    if not store:
        await door.caller.ended(chunk.id.removeprefix("chatcmpl-"))
        with pytest.raises(openai.ConflictError) as refused:
            await door.sdk.chat.completions.create(**asked, stream=False)
        assert refused.value.code == "cancelled"
        return
    whole = await door.sdk.chat.completions.create(**asked, stream=False)
    assert (whole.id, whole.choices[0].message.content) == (chunk.id, "abc" * 10)


async def test_models_and_their_other_names(door: Door) -> None:
    listed = {model.id: model async for model in door.sdk.models.list()}
    assert {"script", "small", "nobody-asks", "gpt-3.5-turbo", "gpt-4"} <= listed.keys()
    assert listed["gpt-4"].owned_by == listed["script"].owned_by == "local"
    assert (await door.sdk.models.retrieve("gpt-4")).id == "gpt-4"
    with pytest.raises(openai.NotFoundError) as missing:
        await door.sdk.models.retrieve("gpt-17")
    assert missing.value.code == "model_not_found"
    found = await door.sdk.chat.completions.create(model="gpt-4", messages=ASK)
    assert found.model == SCRIPTED


async def test_older_completions(door: Door) -> None:
    found = await door.sdk.completions.create(model=SCRIPTED, prompt=["one", "two"], n=2, echo=True)
    assert [(one.index, one.finish_reason) for one in found.choices] == [(n, "length") for n in range(4)]
    assert [one.text[:3] for one in found.choices] == ["one", "one", "two", "two"]
    assert found.usage is not None
    assert found.usage.completion_tokens == 64
    chunks = [
        chunk
        async for chunk in await door.sdk.completions.create(
            model=SCRIPTED, prompt="one", max_tokens=3, stream=True, stream_options={"include_usage": True}
        )
    ]
    assert len("".join(one.choices[0].text for one in chunks if one.choices).split()) == 3
    assert chunks[-1].usage is not None
    assert [one.choices[0].finish_reason for one in chunks if one.choices][-1] == "length"


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "best_of": 3}, "best_of"),
        ({"prompt": ["a"] * 9, "n": 2}, "prompt"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
    ],
)
async def test_what_older_completions_do_not_take(door: Door, request_: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await door.sdk.completions.create(model=SCRIPTED, **request_)
    assert refused.value.param == param


async def test_sdks_ask_again_where_it_helps_and_only_there(parley: Up, admin: Client) -> None:
    asked: list[httpx.Response] = []

    async def note(response: httpx.Response) -> None:
        asked.append(response)

    async with AsyncExitStack() as held:
        http = await held.enter_async_context(openai.DefaultAsyncHttpxClient(event_hooks={"response": [note]}))
        sdk = AsyncOpenAI(base_url=f"{parley.url}/v1", api_key=admin.key, max_retries=1, http_client=http)
        key = {"Idempotency-Key": str(uuid4())}
        await sdk.chat.completions.create(model=SCRIPTED, messages=ASK, extra_headers=key)
        with pytest.raises(openai.ConflictError):
            await sdk.chat.completions.create(model=SCRIPTED, messages=ASK, seed=3, extra_headers=key)
    assert [one.status_code for one in asked] == [200, 409]


async def test_the_sdk_waits_for_a_place_by_itself(parley: Up, admin: Client) -> None:
    statuses: list[int] = []

    async def note(response: httpx.Response) -> None:
        statuses.append(response.status_code)

    async with (
        Busy.of(admin) as busy,
        openai.DefaultAsyncHttpxClient(event_hooks={"response": [note]}) as http,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(busy.free())
        sdk = AsyncOpenAI(base_url=f"{parley.url}/v1", api_key=busy.key, max_retries=20, http_client=http)
        found = await sdk.chat.completions.create(model=SCRIPTED, messages=ASK, metadata=scripted(tokens=["a"]))
    assert found.choices[0].message.content == "a"
    assert statuses == [429] * (len(statuses) - 1) + [200]
    assert len(statuses) > 1
