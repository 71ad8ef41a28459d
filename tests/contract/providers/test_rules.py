"""Requests that the providers would refuse are refused, and all others are not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.providers import anthropic_rules, openai_rules
from tests.providers.anthropic_turns import LATEST
from tests.providers.model import default_models
from tests.providers.problem import Problem

MODELS = default_models()
USER = {"role": "user", "content": "Hello there"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLING = {"role": "assistant", "tool_calls": [CALL]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
USE = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "three more words"}
THINKING = {"type": "enabled", "budget_tokens": 1024}


def openai(**changes: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [USER]} | changes


def anthropic(**changes: Any) -> dict[str, Any]:
    body = {"model": "claude-haiku-4-5", "max_tokens": 4096, "messages": [USER]} | changes
    return {name: value for name, value in body.items() if value is not None}


@pytest.mark.parametrize(
    ("body", "kind", "param"),
    [
        ({"model": "gpt-4o-mini"}, "invalid", "messages"),
        ({"messages": [USER]}, "invalid", "model"),
        (openai(model="gpt-9"), "not_found", None),
        (openai(messages=[]), "invalid", "messages"),
        (openai(top_k=4), "invalid", "top_k"),
        (openai(system="Be kind"), "invalid", "system"),
        (openai(temperature=2.5), "invalid", "temperature"),
        (openai(max_tokens=0), "invalid", "max_tokens"),
        (openai(max_tokens="5"), "invalid", "max_tokens"),
        (openai(max_tokens=5, max_completion_tokens=5), "invalid", "max_tokens"),
        (openai(stop=["a", "b", "c", "d", "e"]), "invalid", "stop"),
        (openai(stream_options={"include_usage": True}), "invalid", "stream_options"),
        (openai(stream=True, stream_options={"usage": True}), "invalid", "stream_options"),
        (openai(tool_choice="auto"), "invalid", "tool_choice"),
        (openai(tools=[{"name": "f"}]), "invalid", "tools[0]"),
        (openai(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "g"}}), "invalid", "tool_choice"),
        (openai(messages=[{"role": "user"}]), "invalid", "messages.[0].content"),
        (openai(messages=[{"role": "model", "content": "x"}]), "invalid", "messages.[0].role"),
        (openai(messages=[USER | {"id": 1}]), "invalid", "messages.[0].id"),
        (
            openai(messages=[USER, {"role": "tool", "tool_call_id": "x", "content": "y"}]),
            "invalid",
            "messages.[1].role",
        ),
        (openai(messages=[USER, CALLING]), "invalid", "messages.[1].role"),
        (openai(messages=[USER, CALLING, USER]), "invalid", "messages.[2].role"),
        (openai(messages=[USER, CALLING | {"tool_calls": []}]), "invalid", "messages.[1].tool_calls"),
        (openai(messages=[{"role": "user", "content": "word " * 128_001}]), "context", "messages"),
        (openai(max_tokens=128_000), "context", "messages"),
        (openai(model="o4-mini", max_tokens=9), "invalid", "max_tokens"),
        (openai(model="o4-mini", temperature=0), "invalid", "temperature"),
        (openai(top_logprobs=2), "invalid", "top_logprobs"),
        (openai(logprobs=True, top_logprobs=21), "invalid", "top_logprobs"),
        (openai(model="o4-mini", logprobs=True), "invalid", "logprobs"),
    ],
)
def test_openai_refuses(body: dict[str, Any], kind: str, param: str | None) -> None:
    with pytest.raises(Problem) as refused:
        openai_rules.asked(body, MODELS, frozenset())
    assert (refused.value.kind, refused.value.param) == (kind, param)


@pytest.mark.parametrize(
    "body",
    [
        openai(messages=[{"role": "system", "content": "Be kind"}, USER], stop="end", seed=-1, user="u"),
        openai(messages=[{"role": "user", "content": [{"type": "text", "text": "Hello there"}]}]),
        openai(messages=[USER, CALLING, {"role": "tool", "tool_call_id": "call_1", "content": "y"}], tools=[TOOL]),
        openai(model="o4-mini", max_completion_tokens=9, temperature=1, reasoning_effort="low"),
        openai(stream=True, stream_options={"include_usage": True}),
        openai(messages=[USER, USER, {"role": "assistant", "content": "x"}]),
        openai(logprobs=True, top_logprobs=20),
    ],
)
def test_openai_accepts(body: dict[str, Any]) -> None:
    assert openai_rules.asked(body, MODELS, frozenset()).input_tokens >= 2


def test_a_compatible_server_knows_more_parameters() -> None:
    assert openai_rules.asked(openai(top_k=4), MODELS, frozenset({"top_k"})).model == "gpt-4o-mini"


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        (anthropic(max_tokens=None), "invalid", "max_tokens: Field required"),
        (anthropic(model="claude-0"), "not_found", "model: claude-0"),
        (anthropic(max_tokens=64_001), "invalid", "max_tokens: 64001 > 64000"),
        (anthropic(max_completion_tokens=5), "invalid", "max_completion_tokens: Extra inputs are not permitted"),
        (anthropic(stop="x"), "invalid", "stop: Extra inputs are not permitted"),
        (anthropic(seed=1), "invalid", "seed: Extra inputs are not permitted"),
        (anthropic(stop_sequences=[" "]), "invalid", "stop_sequences"),
        (anthropic(temperature=1.5), "invalid", "temperature"),
        (anthropic(messages=[]), "invalid", "at least one message"),
        (anthropic(messages=[{"role": "system", "content": "x"}, USER]), "invalid", "top-level `system`"),
        (anthropic(messages=[{"role": "assistant", "content": "x"}, USER]), "invalid", "first message must use"),
        (anthropic(messages=[USER | {"content": ""}]), "invalid", "must be non-empty"),
        (anthropic(messages=[USER | {"name": "x"}]), "invalid", "messages.0.name: Extra inputs"),
        (anthropic(messages=[USER, {"role": "assistant", "content": [USE]}]), "invalid", "without `tool_result`"),
        (anthropic(messages=[USER, {"role": "assistant", "content": [USE]}, USER]), "invalid", "without `tool_result`"),
        (anthropic(messages=[{"role": "user", "content": [RESULT]}]), "invalid", "unexpected `tool_use_id`"),
        (
            anthropic(
                messages=[
                    USER,
                    {"role": "assistant", "content": [USE]},
                    {"role": "user", "content": [{"type": "text", "text": "x"}, RESULT]},
                ]
            ),
            "invalid",
            "must come first",
        ),
        (
            anthropic(
                thinking=THINKING,
                messages=[
                    USER,
                    {"role": "assistant", "content": [USE]},
                    {"role": "user", "content": [RESULT]},
                ],
            ),
            "invalid",
            "must start with a thinking block",
        ),
        (anthropic(messages=[USER, {"role": "assistant", "content": "x "}]), "invalid", "trailing whitespace"),
        (
            anthropic(model="claude-opus-4-8", messages=[USER, {"role": "assistant", "content": "x"}]),
            "invalid",
            "prefill",
        ),
        (anthropic(system=[{"type": "text", "text": ""}]), "invalid", "system"),
        (anthropic(tools=[TOOL]), "invalid", "tools.0"),
        (anthropic(tool_choice={"type": "any"}), "invalid", "while providing tools"),
        (anthropic(thinking=THINKING | {"budget_tokens": 100}), "invalid", "budget_tokens"),
        (anthropic(thinking=THINKING, max_tokens=1024), "invalid", "must be greater"),
        (anthropic(thinking=THINKING, temperature=0), "invalid", "`temperature` may only"),
        (anthropic(messages=[{"role": "user", "content": "word " * 200_001}]), "context", "prompt is too long"),
    ],
)
def test_anthropic_refuses(body: dict[str, Any], kind: str, says: str) -> None:
    with pytest.raises(Problem) as refused:
        anthropic_rules.asked(body, MODELS, "2023-06-01")
    assert refused.value.kind == kind
    assert says in refused.value.message


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (anthropic(system="Be kind"), 4),
        (anthropic(messages=[USER, USER]), 4),
        (anthropic(messages=[USER, {"role": "assistant", "content": "It is"}]), 4),
        (
            anthropic(
                messages=[
                    USER,
                    {"role": "assistant", "content": [{"type": "text", "text": "Look"}, USE]},
                    {"role": "user", "content": [RESULT]},
                    USER,
                ],
                tools=[{"name": "f", "input_schema": {"type": "object"}}],
            ),
            8,
        ),
    ],
)
def test_anthropic_accepts(body: dict[str, Any], words: int) -> None:
    assert anthropic_rules.asked(body, MODELS, LATEST).input_tokens == words


@pytest.mark.parametrize(
    ("body", "version", "says"),
    [
        (anthropic(), None, "anthropic-version: header is required"),
        (anthropic(), "2024-01-01", "not a valid version"),
        (anthropic(temperature=1), LATEST, "temperature: Extra inputs are not permitted"),
        (anthropic(top_p=1, top_k=0), LATEST, "top_k: Extra inputs are not permitted"),
        (
            anthropic(messages=[{"role": "user", "content": [{"type": "text", "text": "x", "citations": [{}]}]}]),
            LATEST,
            "`citations` are not permitted",
        ),
    ],
)
def test_versions_differ(body: dict[str, Any], version: str | None, says: str) -> None:
    with pytest.raises(Problem) as refused:
        anthropic_rules.asked(body, MODELS, version)
    assert says in refused.value.message
    assert anthropic_rules.asked(body, MODELS, "2023-06-01").most_tokens == 4096


def test_newer_models_take_system_messages_within_the_conversation() -> None:
    messages = [USER, {"role": "system", "content": "Be kind"}, USER]
    asked = anthropic_rules.asked(anthropic(model="claude-opus-4-8", messages=messages), MODELS, LATEST)
    assert asked.input_tokens == 6
    with pytest.raises(Problem, match="top-level `system`"):
        anthropic_rules.asked(anthropic(messages=messages), MODELS, LATEST)


def test_a_path_that_names_the_model_wants_a_version_in_the_body() -> None:
    body = anthropic(model=None, anthropic_version="bedrock-2023-05-31")

    def asked(body: dict[str, Any], version: str) -> str:
        return anthropic_rules.asked(body, MODELS, model="claude-haiku-4-5", versions=frozenset({version})).model

    assert asked(body, "bedrock-2023-05-31") == "claude-haiku-4-5"
    with pytest.raises(Problem, match="not a valid version"):
        asked(body, "vertex-2023-10-16")
    with pytest.raises(Problem, match="model: Extra"):
        asked(body | {"model": "m"}, "bedrock-2023-05-31")
