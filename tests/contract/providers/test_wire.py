"""Our frames have the shape of the providers' published examples, and are what their SDKs' types say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.shared import ErrorResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.chat_completion import ChoiceLogprobs
from pydantic import BaseModel, TypeAdapter

from tests.providers import anthropic_wire, openai_wire
from tests.providers.answer import Answer, Asked, Tool, answer
from tests.providers.frame import Frame, data_only, named
from tests.providers.problem import Problem
from tests.providers.script import Call, Script

PUBLISHED = Path(__file__).parents[2] / "providers" / "wire"
WEATHER = Tool(
    "get_weather", {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]}
)
ASKED = Asked(model="m", stream=True, texts=("What is the weather like?",), most_tokens=None, tools=(WEATHER,))
SCORED = replace(ASKED, logprobs=2)
OPENAI_HEAD = {"id": "chatcmpl-1", "created": 1694268190, "model": "m"}
ANTHROPIC_HEAD = {"id": "msg_1", "model": "m"}
SCRIPTS = {
    "text": Script(words=3),
    "nothing": Script(words=0),
    "tool": Script(words=3, calls=(Call(),)),
    "tools at once": Script(calls=(Call(), Call(arguments={"location": "Łódź"}))),
    "thinking": Script(words=3, reasoning=4, cached=2, cache_written=1),
}


def said(script: Script) -> Answer:
    return answer(ASKED, script, call_prefix="call_")


def openai_chunks(
    script: Script, *, include_usage: bool = True, azure: bool = False, top_logprobs: int | None = None
) -> list[Any]:
    asked = replace(ASKED, include_usage=include_usage, logprobs=top_logprobs)
    frames = openai_wire.frames(said(script), asked, OPENAI_HEAD, script.usage, azure)
    return [*parsed(b"".join(map(data_only, frames)).decode())]


def anthropic_events(script: Script) -> list[Any]:
    frames: Iterable[Frame] = anthropic_wire.frames(said(script), ANTHROPIC_HEAD, script.usage)
    return [*parsed(b"".join(map(named, frames)).decode())]


def parsed(stream: str) -> Iterator[Any]:
    """The data of every event of a stream, whose names, where it has them, are their types."""
    for event in stream.removesuffix("\n\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in event.split("\n"))
        if fields["data"] == "[DONE]":
            yield "[DONE]"
            continue
        data = json.loads(fields["data"])
        assert fields.get("event") == data.get("type")
        yield data


def published(name: str) -> list[Any]:
    return [*parsed((PUBLISHED / name).read_text())]


def lacks(ours: Any, theirs: Any, where: str = "$") -> list[str]:
    """What of ``theirs`` is not in ``ours``, or is of another type there. Null agrees with anything optional."""
    if isinstance(theirs, dict):
        if not isinstance(ours, dict):
            return [f"{where}: {type(ours).__name__} where an object was published"]
        missing = [f"{where}.{name} is missing" for name in theirs.keys() - ours.keys()]
        return missing + [
            wrong
            for name in theirs.keys() & ours.keys()
            for wrong in lacks(ours[name], theirs[name], f"{where}.{name}")
        ]
    if isinstance(theirs, list):
        if not isinstance(ours, list) or bool(ours) != bool(theirs):
            return [f"{where}: {ours!r} where {theirs!r} was published"]
        return [wrong for our, their in zip(ours, theirs, strict=False) for wrong in lacks(our, their, f"{where}[]")]
    agrees = theirs is None or ours is None or type(ours) is type(theirs)
    return [] if agrees else [f"{where}: {ours!r} where {theirs!r} was published"]


def kind_of_event(event: Any) -> str:
    """The type of an event of Anthropic's, with the kind of its block or delta."""
    inner = event.get("content_block") or event.get("delta") or {}
    return f"{event['type']} {inner.get('type', '')}".strip()


def kind_of_chunk(chunk: Any) -> str:
    """r: role, c: content, t: tool call, f: finish, u: usage, D: the end."""
    if chunk == "[DONE]":
        return "D"
    if not chunk["choices"]:
        return "u"
    delta = chunk["choices"][0]["delta"]
    if chunk["choices"][0]["finish_reason"]:
        return "f"
    return "r" if "role" in delta else "t" if "tool_calls" in delta else "c"


CHUNK_ORDER = re.compile("rc*t*fu?D")
EVENT_LETTERS = {"message_start": "m", "content_block_start": "(", "content_block_delta": "d"} | {
    "content_block_stop": ")",
    "message_delta": "M",
    "message_stop": "S",
}
EVENT_ORDER = re.compile(r"m(\(d*\))*MS")
"""Guide "Streaming Messages", section "Event types", without pings, which may stand anywhere."""


def order_of_events(events: list[Any]) -> str:
    return "".join(EVENT_LETTERS[event["type"]] for event in events if event["type"] != "ping")


def unknown_fields(value: Any, where: str = "$") -> list[str]:
    """Fields that an SDK's types do not have; their models would keep them without a word."""
    if isinstance(value, BaseModel):
        fields = {name: getattr(value, name) for name in type(value).model_fields}
        return [f"{where}.{name}" for name in value.model_extra or {}] + [
            wrong for name, field in fields.items() for wrong in unknown_fields(field, f"{where}.{name}")
        ]
    if isinstance(value, list):
        return [wrong for item in value for wrong in unknown_fields(item, f"{where}[]")]
    return []


def as_sdk(kind: Any, data: Any) -> list[str]:
    """Validates strictly. Returns the fields that are not the type's."""
    return unknown_fields(TypeAdapter(kind).validate_json(json.dumps(data), strict=True))


def test_text_chunks_are_those_of_the_reference() -> None:
    theirs = published("openai_chat_stream.sse")
    ours = openai_chunks(SCRIPTS["text"], include_usage=False)
    for kind, their in zip(map(kind_of_chunk, theirs), theirs, strict=True):
        same = [our for our in ours if kind_of_chunk(our) == kind]
        assert same, kind
        if their == "[DONE]":
            continue
        for our in same:
            assert lacks(our, their) == []
            assert lacks(their, our) == []
            assert our["choices"][0]["delta"].keys() == their["choices"][0]["delta"].keys()
    for chunks in (theirs, ours):
        assert CHUNK_ORDER.fullmatch("".join(map(kind_of_chunk, chunks)))


def test_tool_call_deltas_are_those_of_the_guide() -> None:
    def without_null(value: Any) -> Any:
        return {k: without_null(v) for k, v in value.items() if v is not None} if isinstance(value, dict) else value

    lines = (PUBLISHED / "openai_tool_call_deltas.jsonl").read_text().splitlines()
    theirs = [without_null(delta) for line in lines for delta in json.loads(line) or []]
    chunks = openai_chunks(SCRIPTS["tool"], include_usage=False)
    ours = [chunk["choices"][0]["delta"]["tool_calls"][0] for chunk in chunks if kind_of_chunk(chunk) == "t"]
    assert len(ours) > 2
    for our, their in zip(ours, [theirs[0]] + theirs[1:2] * (len(ours) - 1), strict=True):
        assert lacks(our, their) == []
        assert lacks(their, our) == []
    assert json.loads("".join(our["function"]["arguments"] for our in ours)) == {"location": "words"}
    assert CHUNK_ORDER.fullmatch("".join(map(kind_of_chunk, chunks)))


def test_usage_comes_in_a_chunk_of_its_own_and_is_null_in_all_others() -> None:
    lines = (PUBLISHED / "openai_stream_usage.jsonl").read_text().splitlines()
    theirs = [json.loads(line) for line in lines]
    ours = openai_chunks(SCRIPTS["text"])[:-1]
    for chunks in (theirs, ours):
        assert [chunk["usage"] is None for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
        assert chunks[-1]["choices"] == []
    assert lacks(ours[-1], theirs[-1]) == []
    assert ours[-1]["usage"]["total_tokens"] == 5 + 3


def test_a_completion_is_that_of_the_reference() -> None:
    theirs = json.loads((PUBLISHED / "openai_completion.json").read_text())
    ours = openai_wire.body(said(SCRIPTS["text"]), ASKED, OPENAI_HEAD, "right")
    assert lacks(ours, theirs) == []
    assert lacks(theirs, ours) == []


def test_logprobs_are_those_of_the_reference() -> None:
    theirs = json.loads((PUBLISHED / "openai_logprobs.json").read_text())
    assert as_sdk(ChoiceLogprobs, theirs) == []
    answer = openai_wire.body(said(SCRIPTS["text"]), SCORED, OPENAI_HEAD, "right")
    chunks = [one for one in openai_chunks(SCRIPTS["text"], top_logprobs=2) if kind_of_chunk(one) == "c"]
    streamed = [chunk["choices"][0]["logprobs"] for chunk in chunks]
    for ours in (answer["choices"][0]["logprobs"], *streamed):
        assert lacks(ours, theirs) == []
        assert lacks(theirs | {"refusal": None}, ours) == []
    for logprobs in (theirs, answer["choices"][0]["logprobs"]):
        for token in logprobs["content"]:
            assert bytes(token["bytes"]).decode() == token["token"]
            assert len(token["top_logprobs"]) == 2
            assert token["top_logprobs"][0] == {name: token[name] for name in ("token", "logprob", "bytes")}
    tokens = [token for logprobs in streamed for token in logprobs["content"]]
    assert tokens == answer["choices"][0]["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens) == said(SCRIPTS["text"]).said("text")


@pytest.mark.parametrize(
    ("example", "script"),
    [
        ("anthropic_basic.sse", "text"),
        ("anthropic_tool_use.sse", "tool"),
        ("anthropic_thinking.sse", "thinking"),
    ],
)
def test_events_are_those_of_the_guide(example: str, script: str) -> None:
    theirs, ours = published(example), anthropic_events(SCRIPTS[script])
    kinds = {kind_of_event(event) for event in theirs}
    assert kinds - {"ping"} == {kind_of_event(event) for event in ours} - {"ping"}
    for their in theirs:
        for our in ours:
            if kind_of_event(our) == kind_of_event(their):
                assert lacks(our, their) == []
    for events in (theirs, ours):
        assert EVENT_ORDER.fullmatch(order_of_events(events))
        assert [e["index"] for e in events if e["type"] == "content_block_start"] == [
            e["index"] for e in events if e["type"] == "content_block_stop"
        ]


def test_a_thinking_block_ends_with_its_signature() -> None:
    for events in (published("anthropic_thinking.sse"), anthropic_events(SCRIPTS["thinking"])):
        deltas = [event["delta"]["type"] for event in events if event["type"] == "content_block_delta"]
        thinking = deltas[: deltas.index("text_delta")]
        assert thinking[-1] == "signature_delta"
        assert set(thinking[:-1]) == {"thinking_delta"}


def test_errors_are_those_of_the_reference() -> None:
    [theirs] = published("anthropic_error.sse")
    assert lacks(anthropic_wire.stream_error(), theirs) == []
    assert lacks(theirs, anthropic_wire.stream_error()) == []
    body = json.loads((PUBLISHED / "anthropic_error.json").read_text())
    ours = anthropic_wire.error(Problem("not_found", "model: m"), "req_1")[1]
    assert lacks(ours, body) == []
    assert lacks(body, ours) == []
    assert as_sdk(ErrorResponse, ours) == []


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_the_sdks_types_know_every_field_of_ours(script: Script) -> None:
    for event in anthropic_events(script):
        if event["type"] != "ping":
            assert as_sdk(RawMessageStreamEvent, event) == []
    assert as_sdk(Message, anthropic_wire.body(said(script), ANTHROPIC_HEAD, "right")) == []
    reasons = bool(script.reasoning)
    for chunk in (*openai_chunks(script)[:-1], *openai_chunks(script, top_logprobs=2)[:-1]):
        added = ["$.choices[].delta.reasoning_content"]
        assert as_sdk(ChatCompletionChunk, chunk) in ([], added if reasons else [])
    added = ["$.choices[].message.reasoning_content"] if reasons else []
    assert as_sdk(ChatCompletion, openai_wire.body(said(script), SCORED, OPENAI_HEAD, "right")) == added


@pytest.mark.parametrize("example", ["anthropic_basic.sse", "anthropic_tool_use.sse"])
def test_the_sdks_types_know_the_published_events_too(example: str) -> None:
    for event in published(example):
        if event["type"] != "ping":
            assert as_sdk(RawMessageStreamEvent, event) == []


def test_azure_says_first_that_the_prompt_passed_its_filters() -> None:
    first, second, *_ = openai_chunks(SCRIPTS["text"], azure=True)
    assert first["choices"] == []
    assert first["prompt_filter_results"][0]["prompt_index"] == 0
    assert second["choices"][0]["content_filter_results"]["hate"] == {"filtered": False, "severity": "safe"}


def test_parallel_calls_may_alternate() -> None:
    script = replace(SCRIPTS["tools at once"], interleaved=True)
    chunks = [c for c in openai_chunks(script)[:-1] if kind_of_chunk(c) == "t"]
    calls = [chunk["choices"][0]["delta"]["tool_calls"][0] for chunk in chunks]
    assert [call["index"] for call in calls][:6] == [0, 1, 0, 1, 0, 1]
    for index, location in enumerate(["words", "Łódź"]):
        arguments = "".join(call["function"]["arguments"] for call in calls if call["index"] == index)
        assert json.loads(arguments) == {"location": location}


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, "0ms"), (0.12, "120ms"), (1, "1s"), (8.64, "8.64s"), (360, "6m0s"), (86.4, "1m26.4s"), (3600, "1h0m0s")],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, written: str) -> None:
    assert openai_wire.duration(seconds) == written
