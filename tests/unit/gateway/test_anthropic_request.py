"""From a request of Anthropic's clients to the prompt that it is."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from command_api.chat_request import NotAPrompt
from command_api.prompt import PromptBody
from gateway.anthropic.request import CountRequest, MessagesRequest

ASK = {"role": "user", "content": "Why?"}
TOOL = {"name": "look", "description": "Look.", "input_schema": {"type": "object"}, "strict": True}
IMAGE: dict[str, Any] = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
}


def request(**given: Any) -> MessagesRequest:
    return MessagesRequest.model_validate({"model": "m", "max_tokens": 9, "messages": [ASK]} | given)


def prompt(**given: Any) -> PromptBody:
    return request(**given).prompt()


def said(found: PromptBody) -> list[dict[str, Any]]:
    return [one.model_dump(exclude_defaults=True) for one in found.messages]


def test_what_is_sampled_and_where_it_stops() -> None:
    found = prompt(temperature=0.5, top_p=0.9, top_k=4, stop_sequences=["a", "b"], stream=True, service_tier="auto")
    assert found.model == "m"
    assert found.parameters.model_dump(exclude_defaults=True) == {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 4,
        "max_tokens": 9,
        "stop": ("a", "b"),
    }


@pytest.mark.parametrize(
    ("system", "content"),
    [
        ("Be brief.", "Be brief."),
        (
            [
                {"type": "text", "text": "Be"},
                {"type": "text", "text": "brief.", "cache_control": {"type": "ephemeral"}},
            ],
            ({"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}),
        ),
    ],
)
def test_the_system_prompt_is_the_first_message(system: Any, content: Any) -> None:
    assert said(prompt(system=system))[0] == {"role": "system", "content": content}


def test_blocks_of_a_user_are_parts_and_what_tools_said_are_messages() -> None:
    url = {"type": "image", "source": {"type": "url", "url": "https://example.com/cat.png"}}
    found = prompt(
        messages=[
            ASK,
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": ""},
                    {"type": "redacted_thinking", "data": "x"},
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "ä"}},
                    {"type": "tool_use", "id": "t2", "name": "look", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": "a cat"},
                    {
                        "type": "tool_result",
                        "tool_use_id": "t2",
                        "content": [{"type": "text", "text": "too "}, {"type": "text", "text": "dark"}],
                        "is_error": True,
                    },
                    {"type": "text", "text": "Whose?"},
                    IMAGE,
                    url,
                ],
            },
        ],
        tools=[TOOL],
    )
    assert said(found)[1:] == [
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": (
                {"id": "t1", "name": "look", "arguments": '{"at": "ä"}'},
                {"id": "t2", "name": "look", "arguments": "{}"},
            ),
        },
        {"role": "tool", "content": "a cat", "tool_call_id": "t1"},
        {"role": "tool", "content": "Error: too dark", "tool_call_id": "t2"},
        {
            "role": "user",
            "content": (
                {"type": "text", "text": "Whose?"},
                {"type": "image", "url": "data:image/png;base64,iVBORw0KGgo="},
                {"type": "image", "url": "https://example.com/cat.png"},
            ),
        },
    ]
    assert found.tools[0].model_dump() == {
        "name": "look",
        "description": "Look.",
        "parameters": {"type": "object"},
        "strict": True,
    }


@pytest.mark.parametrize(
    ("choice", "expected", "parallel"),
    [
        ({"type": "auto"}, "auto", None),
        ({"type": "any", "disable_parallel_tool_use": True}, "required", False),
        ({"type": "none"}, "none", None),
        ({"type": "tool", "name": "look"}, {"name": "look"}, None),
    ],
)
def test_which_tool_it_has_to_ask_for(choice: Any, expected: Any, parallel: bool | None) -> None:
    parameters = prompt(tools=[TOOL], tool_choice=choice).parameters.model_dump()
    assert (parameters["tool_choice"], parameters["parallel_tool_calls"]) == (expected, parallel)


@pytest.mark.parametrize(
    ("given", "effort", "shown"),
    [
        ({}, None, True),
        ({"thinking": {"type": "disabled"}}, None, False),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "low", True),
        ({"thinking": {"type": "enabled", "budget_tokens": 8192}}, "medium", True),
        ({"thinking": {"type": "enabled", "budget_tokens": 16384, "display": "omitted"}}, "high", False),
        ({"thinking": {"type": "adaptive", "display": "summarized"}}, "high", True),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, "low", True),
        ({"output_config": {"effort": "medium"}}, "medium", True),
    ],
)
def test_how_much_it_thinks(given: dict[str, Any], effort: str | None, shown: bool) -> None:
    asked = request(**given)
    assert (asked.prompt().parameters.reasoning_effort, asked.shows_thinking) == (effort, shown)


def test_metadata_and_the_shape_of_the_answer() -> None:
    found = prompt(
        metadata={"user_id": "u", "ticket": "7", "nothing": None},
        output_config={"format": {"type": "json_schema", "schema": {"type": "object"}}},
    )
    assert found.metadata == {"user_id": "u", "ticket": "7"}
    assert found.response_format is not None
    assert found.response_format.json_schema == {"type": "object"}


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"messages": [ASK, {"role": "assistant", "content": "It"}]}, "messages"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages.0"),
        (
            {"messages": [ASK, {"role": "user", "content": [{**IMAGE, "source": {**IMAGE["source"], "data": "?"}}]}]},
            "messages.1",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "thinking", "thinking": "a"}]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "system", "content": [IMAGE]}, ASK]}, "messages.0.content.0"),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "content": [{"type": "tool_use", "id": "a", "name": "b", "input": {"c": float("nan")}}],
                    },
                    ASK,
                ]
            },
            "messages.0",
        ),
        ({"system": "a\0b"}, "system"),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, "tools.0.name"),
        ({"tool_choice": {"type": "any"}}, "the request"),
        ({"top_k": -1}, "top_k"),
    ],
)
def test_what_is_no_prompt_is_refused_where_it_stands(given: dict[str, Any], field: str) -> None:
    with pytest.raises(NotAPrompt) as refused:
        prompt(**given)
    assert refused.value.field.startswith(field)


@pytest.mark.parametrize(
    "given",
    [
        {"messages": [{"role": "user", "content": [{"type": "document", "source": {}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": [IMAGE]}]}]},
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"tools": [{**TOOL, "input_examples": [{}]}]},
        {"thinking": {"type": "between_tools"}},
        {"output_config": {"effort": "max"}},
        {"container": "c"},
        {"context_management": {}},
    ],
)
def test_what_parley_does_not_do_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        request(**given)


def test_counting_takes_what_is_read_and_nothing_else() -> None:
    asked = {"model": "m", "messages": [ASK], "system": "Be brief.", "tools": [TOOL]}
    assert len(CountRequest.model_validate(asked).prompt().messages) == 2
    with pytest.raises(ValidationError):
        CountRequest.model_validate(asked | {"max_tokens": 5})
