"""What OpenAI's clients write, as a prompt."""

from __future__ import annotations

from typing import Any

import pytest

from command_api.chat_request import NotAPrompt, chat_request
from command_api.prompt import PromptBody, content_of
from event_schemas.chat import ImagePart, TextPart

USER = {"role": "user", "content": "Why is the sky blue?"}


def prompt(**request: Any) -> PromptBody:
    return chat_request({"model": "m", "messages": [USER], **request}).prompt()


def refusal(**request: Any) -> str:
    with pytest.raises(NotAPrompt) as refused:
        prompt(**request)
    return str(refused.value)


def test_messages_keep_their_roles_and_a_developers_are_the_systems() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    messages = prompt(
        messages=[
            {"role": "developer", "content": "Be brief."},
            USER,
            {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None},
            {"role": "tool", "tool_call_id": "call_1", "content": "blue"},
        ]
    ).written()
    assert [message.role for message in messages] == ["system", "user", "assistant", "tool"]
    assert [(one.id, one.name, one.arguments) for one in messages[2].tool_calls] == [("call_1", "look", "{}")]
    assert messages[3].tool_call_id == "call_1"


def test_parts_are_text_and_pictures() -> None:
    url = "data:image/png;base64,AAAA"
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}]
    (message,) = prompt(messages=[{"role": "user", "content": content}]).written()
    assert message.content == (TextPart(text="What is it?"), ImagePart(url=url))


def test_how_to_sample_is_kept() -> None:
    made = prompt(
        temperature=0.2,
        top_p=0.9,
        seed=7,
        max_tokens=5,
        max_completion_tokens=64,
        stop="END",
        logprobs=True,
        top_logprobs=2,
        reasoning_effort="low",
        metadata={"ticket": "1"},
        stream=True,
        user="somebody",
        n=1,
    )
    given = made.parameters
    assert (given.temperature, given.top_p, given.seed, given.max_tokens, given.stop) == (0.2, 0.9, 7, 64, ("END",))
    assert (given.logprobs, given.top_logprobs, given.reasoning_effort) == (True, 2, "low")
    assert made.metadata == {"ticket": "1"}
    assert prompt(max_tokens=5, stop=["a", "b"]).parameters.stop == ("a", "b")
    assert prompt(max_tokens=5).parameters.max_tokens == 5


def test_tools_and_the_choice_among_them_are_kept() -> None:
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}, "strict": True}}]
    made = prompt(tools=tools, tool_choice={"type": "function", "function": {"name": "look"}})
    (tool,) = content_of(made).tools
    assert (tool.name, tool.parameters, tool.strict) == ("look", {"type": "object"}, True)
    assert made.parameters.model_dump()["tool_choice"] == {"name": "look"}
    assert prompt(tools=tools, tool_choice="required").parameters.tool_choice == "required"


def test_formats_of_the_answer_are_kept() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    made = content_of(
        prompt(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}})
    ).response_format
    assert made is not None
    assert (made.name, made.json_schema, made.strict) == ("x", schema, True)
    plain = content_of(prompt(response_format={"type": "json_object"})).response_format
    assert plain is not None
    assert plain.json_schema is None
    assert content_of(prompt(response_format={"type": "text"})).response_format is None


@pytest.mark.parametrize(
    ("request_", "where"),
    [
        ({"n": 2}, "n: "),
        ({"logit_bias": {"1": 2}}, "logit_bias: "),
        ({"messages": []}, "messages: "),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages.0: `content` must not be empty"),
        ({"temperature": 3}, "temperature: "),
        ({"max_completion_tokens": 0}, "max_tokens: "),
        ({"top_logprobs": 2}, "parameters: `top_logprobs` needs `logprobs`"),
        ({"response_format": {"type": "xml"}}, "response_format: "),
    ],
)
def test_what_is_not_done_is_refused_by_name(request_: dict[str, Any], where: str) -> None:
    assert refusal(**request_).startswith(where)


def test_a_refusal_repeats_nothing_of_what_was_written() -> None:
    assert "canary" not in refusal(messages=[{"role": "canary", "content": "canary"}])
