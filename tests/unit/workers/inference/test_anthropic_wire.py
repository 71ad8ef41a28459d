from __future__ import annotations

from typing import Any

import pytest

from event_schemas.chat import ChatMessage, ImagePart, NamedTool, ResponseFormat, TextPart, Tool, ToolCall
from event_schemas.generation import Parameters
from tests.contract.inference.requests import request
from workers.inference.anthropic_wire import Ending, read_event, request_body
from workers.inference.port import (
    BackendUnavailable,
    Delta,
    Finished,
    InferenceRequest,
    Item,
    NotServed,
    RateLimited,
    Reasoning,
    RequestRefused,
    ToolCallDelta,
)

NEW, OLD = "claude-opus-4-8", "claude-sonnet-4-5"


def asking(*messages: ChatMessage | str, model: str = "any", **more: Any) -> InferenceRequest:
    made = request(*messages, parameters=more.pop("parameters", Parameters()))
    return InferenceRequest(
        made.generation_id, made.attempt, model, made.messages, made.parameters, made.metadata, **more
    )


def body(*messages: ChatMessage | str, **more: Any) -> dict[str, Any]:
    return request_body(asking(*messages, **more))


def refused(*messages: ChatMessage | str, **more: Any) -> RequestRefused:
    with pytest.raises(RequestRefused) as raised:
        body(*messages, **more)
    return raised.value


def assistant(content: str = "", *calls: ToolCall) -> ChatMessage:
    return ChatMessage(role="assistant", content=content, tool_calls=calls)


def test_a_plain_prompt() -> None:
    assert body("Hi", parameters=Parameters(top_k=5), stop=("END",)) == {
        "model": "any",
        "stream": True,
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        "top_k": 5,
        "stop_sequences": ["END"],
    }


def test_turns_alternate_and_blanks_are_left_out() -> None:
    turns = body("One", assistant("  "), "Two", assistant("Three"), assistant(" four \n"))["messages"]
    assert [(turn["role"], [block["text"] for block in turn["content"]]) for turn in turns] == [
        ("user", ["One", "Two"]),
        ("assistant", ["Three", " four"]),
    ]


def test_system_messages_stand_apart() -> None:
    said = body(ChatMessage(role="system", content="A"), "Hi", ChatMessage(role="system", content="B"))
    assert [block["text"] for block in said["system"]] == ["A", "B"]
    assert len(said["messages"]) == 1


def test_a_tools_parameters_are_an_object_in_any_case() -> None:
    tools = (
        Tool(name="a"),
        Tool(name="b", strict=True, parameters={"properties": {"c": {}}}),
        Tool(name="d", strict=False),
    )
    assert body(tools=tools)["tools"] == [
        {"name": "a", "input_schema": {"type": "object", "properties": {}}},
        {"name": "b", "input_schema": {"type": "object", "properties": {"c": {}}}, "strict": True},
        {"name": "d", "input_schema": {"type": "object", "properties": {}}},
    ]


def test_without_tools_there_is_no_choice_of_them() -> None:
    assert "tool_choice" not in body(parameters=Parameters(tool_choice="auto", parallel_tool_calls=False))


@pytest.mark.parametrize(
    ("parameters", "reason", "named"),
    [
        (Parameters(max_tokens=0), "invalid_request", "max_tokens is 0"),
        (Parameters(temperature=1.5), "invalid_request", "temperature is 1.5"),
        (Parameters(seed=0), "unsupported", "seed"),
        (Parameters(min_p=0.1), "unsupported", "min_p"),
        (Parameters(presence_penalty=0), "unsupported", "presence_penalty"),
        (Parameters(frequency_penalty=1), "unsupported", "frequency_penalty"),
    ],
)
def test_parameters_that_it_does_not_take(parameters: Parameters, reason: str, named: str) -> None:
    error = refused(parameters=parameters)
    assert error.reason == reason
    assert named in str(error)


@pytest.mark.parametrize("arguments", ['{"secret": ', "[1]", '"secret"', "null"])
def test_broken_arguments_are_named_but_not_told(arguments: str) -> None:
    calls = (ToolCall(id="a", name="f", arguments=" "), ToolCall(id="b", name="f", arguments=arguments))
    error = refused("Hi", assistant("", *calls), "Go on")
    assert (error.reason, str(error)) == (
        "invalid_request",
        "the arguments of tool call 1 of message 1 are no JSON object",
    )


@pytest.mark.parametrize(
    "url", ["http://example.org/secret.png", "ftp://secret", "data:image/png,secret", "data:;base64,secret", "secret"]
)
def test_images_that_nobody_can_read(url: str) -> None:
    error = refused(ChatMessage(role="user", content=(ImagePart(url=url),)))
    assert error.reason == "invalid_request"
    assert "secret" not in str(error)


def test_a_data_url_may_have_parameters() -> None:
    [turn] = body(ChatMessage(role="user", content=(ImagePart(url="data:image/webp;a=b;base64,AAAA"),)))["messages"]
    assert turn["content"][0]["source"] == {"type": "base64", "media_type": "image/webp", "data": "AAAA"}


@pytest.mark.parametrize(
    ("messages", "more", "reason"),
    [
        ((" ", assistant("")), {}, "invalid_request"),
        ((ChatMessage(role="system", content="A"),), {}, "invalid_request"),
        (
            (ChatMessage(role="system", content=(TextPart(text="A"), ImagePart(url="https://a/b.png"))), "Hi"),
            {},
            "invalid_request",
        ),
        (("Hi",), {"response_format": ResponseFormat()}, "unsupported"),
    ],
)
def test_prompts_that_it_cannot_be_asked(messages: tuple[Any, ...], more: dict[str, Any], reason: str) -> None:
    assert refused(*messages, **more).reason == reason


def test_effort_and_format_share_a_place() -> None:
    wanted = ResponseFormat(json_schema={"type": "object"})
    assert body(model=NEW, response_format=wanted, parameters=Parameters(reasoning_effort="high"))["output_config"] == {
        "effort": "high",
        "format": {"type": "json_schema", "schema": {"type": "object"}},
    }


@pytest.mark.parametrize(
    ("model", "adaptive"),
    [
        ("claude-3-7-sonnet-20250219", False),
        ("claude-opus-4-20250514", False),
        ("claude-4-opus-20250514", False),
        ("claude-haiku-4-5@20251001", False),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", False),
        ("anthropic.claude-opus-4-6-v1", True),
        ("claude-sonnet-5", True),
        ("claude-opus-5-5", True),
        ("claude-mythos-preview", True),
        ("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc", True),
    ],
)
def test_which_models_decide_how_long_to_think(model: str, adaptive: bool) -> None:
    sent = body(model=model, parameters=Parameters(reasoning_effort="low"))
    assert sent["thinking"]["type"] == ("adaptive" if adaptive else "enabled")
    assert sent.get("output_config") == ({"effort": "low"} if adaptive else None)


@pytest.mark.parametrize(
    ("effort", "most", "budget"),
    [
        ("high", None, 16384),
        ("high", 8000, 4000),
        ("low", 8000, 2048),
        ("low", 1500, 1024),
        ("low", 1024, None),
        ("minimal", 8000, None),
        (None, 8000, None),
    ],
)
def test_a_budget_leaves_room_for_the_answer(effort: Any, most: int | None, budget: int | None) -> None:
    sent = body(model=OLD, parameters=Parameters(reasoning_effort=effort, max_tokens=most))
    assert sent.get("thinking", {}).get("budget_tokens") == budget
    assert sent["max_tokens"] == (most or 4096 + 16384)


def test_the_least_effort_asks_for_no_thinking() -> None:
    sent = body(model=NEW, parameters=Parameters(reasoning_effort="minimal"))
    assert (sent["output_config"], "thinking" in sent) == ({"effort": "low"}, False)


def test_an_answer_to_tools_does_not_think_where_it_would_have_to_repeat_it() -> None:
    said = (
        "Hi",
        assistant("", ToolCall(id="a", name="f", arguments="{}")),
        ChatMessage(role="tool", content="1", tool_call_id="a"),
    )
    thinks = Parameters(reasoning_effort="low")
    assert "thinking" not in body(*said, model=OLD, parameters=thinks)
    assert "thinking" in body(*said, model=NEW, parameters=thinks)
    assert "thinking" in body(*said, assistant("Yes"), "Go on", model=OLD, parameters=thinks)


@pytest.mark.parametrize(
    "beside", [{"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.5}, {"tool_choice": NamedTool(name="f")}]
)
def test_what_cannot_stand_beside_thinking(beside: dict[str, Any]) -> None:
    wanted = Parameters(reasoning_effort="low", **beside)
    assert refused(model=NEW, tools=(Tool(name="f"),), parameters=wanted).reason == "invalid_request"
    harmless = Parameters(reasoning_effort="low", temperature=1, top_p=0.99, tool_choice="auto")
    assert "thinking" in body(model=NEW, tools=(Tool(name="f"),), parameters=harmless)


def read(*events: dict[str, Any]) -> tuple[list[Item], Ending]:
    ending = Ending()
    return [item for event in events for item in read_event(event, ending)], ending


def delta(index: int = 0, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": fields}


def call(index: int, **more: Any) -> dict[str, Any]:
    block = {"type": "tool_use", "id": f"t{index}", "name": "f", "input": {}, **more}
    return {"type": "content_block_start", "index": index, "content_block": block}


def start(**usage: Any) -> dict[str, Any]:
    return {"type": "message_start", "message": {"usage": usage}}


def end(reason: str | None = "end_turn", **usage: Any) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}


def test_the_pieces_of_an_answer() -> None:
    items, ending = read(
        start(input_tokens=3),
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        delta(type="thinking_delta", thinking="hm"),
        delta(type="signature_delta", signature="abc"),
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        delta(1, type="text_delta", text=""),
        delta(1, type="text_delta", text="Hi"),
        delta(1, type="citations_delta", citation={}),
        call(2),
        delta(2, type="input_json_delta", partial_json=""),
        delta(2, type="input_json_delta", partial_json='{"a":1}'),
        call(3),
        delta(3, type="input_json_delta", partial_json=""),
        call(4, input={"b": 2}),
        end("tool_use", output_tokens=9),
        {"type": "message_stop"},
        {"type": "of_another_year"},
    )
    assert items == [
        Reasoning("hm"),
        Delta("Hi"),
        ToolCallDelta(2, "", "t2", "f"),
        ToolCallDelta(2, '{"a":1}'),
        ToolCallDelta(3, "", "t3", "f"),
        ToolCallDelta(4, "", "t4", "f"),
        ToolCallDelta(3, "{}"),
        ToolCallDelta(4, '{"b":2}'),
    ]
    assert ending.closed
    assert ending.finished() == Finished("tool_calls", 3, 9)


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
        ("of_another_year", "stop"),
        (None, None),
    ],
)
def test_why_it_ended(reason: str | None, finish: str | None) -> None:
    assert read(end(reason, output_tokens=1))[1].finish_reason == finish


@pytest.mark.parametrize(
    ("begun", "last", "finished"),
    [
        (
            {"input_tokens": 1, "cache_creation_input_tokens": 2, "cache_read_input_tokens": 4, "output_tokens": 1},
            {"output_tokens": 9, "output_tokens_details": {"thinking_tokens": 5}},
            Finished("stop", 7, 9, cached_input_tokens=4, reasoning_tokens=5),
        ),
        ({"input_tokens": 1}, {"input_tokens": 6, "output_tokens": 9}, Finished("stop", 6, 9)),
        (
            {"input_tokens": 1, "cache_read_input_tokens": None},
            {"input_tokens": None, "output_tokens": 9},
            Finished("stop", 1, 9),
        ),
        (
            {"input_tokens": 1},
            {"output_tokens": 2, "output_tokens_details": {"thinking_tokens": 5}},
            Finished("stop", 1, 2, reasoning_tokens=2),
        ),
        ({}, {"output_tokens": 9}, Finished("stop", None, None)),
        ({"input_tokens": 1, "output_tokens": 1}, {}, Finished("stop", None, None)),
        ({"input_tokens": True}, {"output_tokens": 9}, Finished("stop", None, None)),
        ({"input_tokens": 1}, {"output_tokens": 0}, Finished("stop", None, None)),
        ({"input_tokens": 1}, {"output_tokens": 1.5}, Finished("stop", None, None)),
        ({"input_tokens": 1, "cache_read_input_tokens": -1}, {"output_tokens": 9}, Finished("stop", None, None)),
        ({"input_tokens": 1, "cache_creation_input_tokens": "2"}, {"output_tokens": 9}, Finished("stop", None, None)),
    ],
)
def test_counts(begun: dict[str, Any], last: dict[str, Any], finished: Finished) -> None:
    _, ending = read(start(**begun), delta(type="text_delta", text="Hi"), end(**last))
    assert ending.finished() == finished


def test_an_answer_without_a_word_may_cost_nothing() -> None:
    assert read(start(input_tokens=1), end(output_tokens=0))[1].finished() == Finished("stop", 1, 0)


@pytest.mark.parametrize(
    ("before", "error", "kind", "reason"),
    [
        ((), {"type": "overloaded_error", "message": "secret"}, NotServed, "provider_failed"),
        ((), {"type": "rate_limit_error", "message": "secret"}, RateLimited, "rate_limited"),
        ((start(),), {"type": "rate_limit_error", "message": "secret"}, BackendUnavailable, "provider_failed"),
        ((start(),), {"type": "a secret message"}, BackendUnavailable, "provider_failed"),
        ((start(),), "secret", BackendUnavailable, "provider_failed"),
    ],
)
def test_an_error_in_the_stream(before: Any, error: Any, kind: type[BackendUnavailable], reason: str) -> None:
    """Only where nothing had begun may another key be asked: what was said already would be said twice."""
    with pytest.raises(BackendUnavailable) as raised:
        read(*before, {"type": "error", "error": error})
    assert (type(raised.value), raised.value.reason) == (kind, reason)
    assert "secret" not in str(raised.value)
