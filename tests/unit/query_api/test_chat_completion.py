"""A finished generation in OpenAI's shape: their own SDK reads it, and finds what was said."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from openai.types.chat import ChatCompletion

from backplane.ports.identifiers import new_id
from query_api.chat_completion import chat_completion

GENERATION = new_id()


def completion(**row: Any) -> ChatCompletion:
    ended = {
        "id": GENERATION,
        "model": "m",
        "content": "Blue.",
        "tool_calls": None,
        "reasoning": None,
        "logprobs": None,
        "finish_reason": "stop",
        "created_at": datetime(2026, 3, 1, 12, tzinfo=UTC),
        "input_tokens": 7,
        "output_tokens": 2,
        "cached_input_tokens": 3,
        "reasoning_tokens": 1,
    }
    return ChatCompletion.model_validate(chat_completion(ended | row), strict=True)


def test_text_and_what_it_took() -> None:
    made = completion()
    (choice,) = made.choices
    assert (made.id, made.created, made.model) == (f"chatcmpl-{GENERATION}", 1772366400, "m")
    assert (choice.message.content, choice.message.tool_calls, choice.finish_reason) == ("Blue.", None, "stop")
    assert made.usage is not None
    assert (made.usage.prompt_tokens, made.usage.completion_tokens, made.usage.total_tokens) == (7, 2, 9)
    assert made.usage.prompt_tokens_details is not None
    assert made.usage.prompt_tokens_details.cached_tokens == 3


def test_calls_of_tools_have_no_text_beside_them() -> None:
    made = completion(
        content="", tool_calls=[{"id": "call_1", "name": "look", "arguments": "{}"}], finish_reason="tool_calls"
    )
    message = made.choices[0].message
    assert message.content is None
    assert message.tool_calls is not None
    (call,) = message.tool_calls
    assert call.type == "function"
    assert (call.id, call.function.name, call.function.arguments) == ("call_1", "look", "{}")


def test_an_answer_may_say_nothing() -> None:
    assert completion(content="").choices[0].message.content == ""


def test_logprobs_have_the_bytes_of_each_token() -> None:
    likely = [{"token": "é", "logprob": -0.5, "top_logprobs": [{"token": "?", "logprob": -2.0, "bytes": [195]}]}]
    found = completion(logprobs=[[], likely]).choices[0].logprobs
    assert found is not None
    assert found.content is not None
    (token,) = found.content
    assert (token.token, token.bytes, token.top_logprobs[0].bytes) == ("é", [195, 169], [195])
