from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from backplane.security.content import DataKey, opened
from backplane.security.principal import Principal
from backplane.settings import LimitSettings, PoolSettings, Settings
from command_api.admission import Refused, admit
from command_api.content_keys import Sealing
from command_api.estimate import Estimate, input_tokens
from command_api.lanes import emptier, lanes
from command_api.prompt import PromptBody, command_of, content_of, title_of
from event_schemas.chat import ChatMessage, ImagePart, Role, TextPart
from event_schemas.control_plane import TitleContent
from event_schemas.generation import PromptContent
from event_schemas.limits import Reserved
from event_schemas.share import Share

KEY = DataKey(b"k" * 32, "conversation/of these tests")
PRINCIPAL = Principal(uuid4(), uuid4(), None, "member", Share(weight=3, priority="low"))


def settings(window: int | None = 128) -> Settings:
    return Settings(
        pools={
            "a": PoolSettings(backend="scripted", models=("small", "large"), context_window=window),
            "b": PoolSettings(backend="scripted", models=("other",)),
        },
        limits=LimitSettings(metadata_bytes=64, messages=3),
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "give `input`, `messages`, or a `parent_message_id`"),
        ({"input": "a", "messages": [{"role": "user", "content": "b"}]}, "not both"),
        ({"messages": [{"role": "assistant", "content": "b"}]}, "must be a user's or a tool's"),
        ({"messages": [{"role": "user"}]}, "messages.0 Value error, `content` must not be empty"),
        ({"messages": [{"role": "tool", "content": "b"}]}, "names its `tool_call_id`"),
        ({"messages": [{"role": "user", "content": "b", "tool_call_id": "c"}]}, "names its `tool_call_id`"),
        (
            {"messages": [{"role": "user", "content": "b", "tool_calls": [{"id": "1", "name": "f", "arguments": ""}]}]},
            "only an assistant's message",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "image", "url": "file:///etc/passwd"}]}]}, "https://"),
        (
            {"messages": [{"role": "tool", "tool_call_id": "1", "content": [{"type": "image", "url": "https://a/b"}]}]},
            "only a user's message has images",
        ),
        ({"input": "a", "tools": [{"name": "no spaces"}]}, "tools.0.name"),
        ({"input": "a", "tools": [{"name": "f", "parameters": {"a": "\0"}}]}, "U+0000"),
        ({"input": "a", "parameters": {"tool_choice": "required"}}, "`tool_choice` needs `tools`"),
        ({"input": "a", "parameters": {"top_logprobs": 2}}, "`top_logprobs` needs `logprobs`"),
        ({"input": "a", "parameters": {"logprobs": True, "top_logprobs": 21}}, "parameters.top_logprobs"),
        ({"messages": [{"role": "robot", "content": "b"}]}, "messages.0.role"),
        ({"input": ""}, "input"),
        ({"input": "a\0b"}, "U+0000"),
        ({"input": "a", "parameters": {"top_p": 1.5}}, "parameters.top_p"),
        ({"input": "a", "parameters": {"tempereture": 1}}, "parameters.tempereture"),
        ({"input": "a", "parameters": {"stop": [""]}}, "parameters.stop.0"),
        ({"input": "a", "metadata": {"k": 1}}, "metadata.k"),
        ({"input": "a", "modle": "x"}, "modle"),
        ({"input": "a", "conversation_id": "no"}, "conversation_id"),
    ],
)
def test_bad_bodies_are_refused_by_field(body: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        PromptBody.model_validate(body)
    shown = " ".join(".".join(map(str, one["loc"])) + " " + one["msg"] for one in caught.value.errors())
    assert message in shown


def test_input_and_one_message_say_the_same() -> None:
    assert (
        PromptBody(input="hi", system="be brief").written()
        == PromptBody.model_validate({"system": "be brief", "messages": [{"role": "user", "content": "hi"}]}).written()
    )


def test_null_parent_begins_anew_and_a_missing_one_does_not() -> None:
    conversation = str(uuid4())
    assert PromptBody.model_validate(
        {"conversation_id": conversation, "input": "a", "parent_message_id": None}
    ).begins_anew
    assert not PromptBody.model_validate({"conversation_id": conversation, "input": "a"}).begins_anew


def test_the_first_model_of_the_first_pool_is_the_default() -> None:
    admitted = admit(PromptBody(input="a"), settings())
    assert (admitted.model, admitted.pool) == ("small", "a")
    assert admit(PromptBody(input="a", model="other"), settings()).pool == "b"


@pytest.mark.parametrize(
    ("body", "type_", "field"),
    [
        (PromptBody(input="a", model="gpt"), "unknown-model", "body.model"),
        (PromptBody(input="x" * 128 * 16), "context-length-exceeded", "body.input"),
        (
            PromptBody.model_validate({"input": "a", "parameters": {"max_tokens": 128}}),
            "context-length-exceeded",
            "body.parameters.max_tokens",
        ),
        (PromptBody(input="a", metadata={"k": "v" * 100}), "metadata-too-large", "body.metadata"),
        (
            PromptBody.model_validate({"messages": [{"role": "user", "content": "a"}] * 4}),
            "too-many-messages",
            "body.messages",
        ),
    ],
)
def test_what_cannot_be_admitted_is_refused_by_type_and_field(body: PromptBody, type_: str, field: str) -> None:
    with pytest.raises(Refused) as caught:
        admit(body, settings())
    assert (caught.value.type, caught.value.field) == (type_, field)


def test_the_command_holds_what_was_asked() -> None:
    body = PromptBody.model_validate(
        {"system": "s", "input": "i", "parameters": {"seed": 3, "stop": ["x"]}, "metadata": {"a": "b"}}
    )
    conversation = uuid4()
    reserved = Reserved(tokens=20, nano_usd=5)
    command = command_of(
        body,
        PRINCIPAL,
        content=content_of(body),
        estimate=Estimate(7, reserved),
        sealing=Sealing(KEY, keeps_content=True),
        generation_id=uuid4(),
        conversation_id=conversation,
        parent_message_id=None,
        wants_title=True,
        model="small",
        pool="a",
    )
    content = opened(command.content, KEY, PromptContent)
    assert [message.role for message in content.messages] == ["system", "user"]
    assert command.roles == ("system", "user")
    assert len(set(command.input_message_ids)) == 2
    assert command.share == PRINCIPAL.share
    assert (command.input_tokens, command.reserved) == (7, reserved)
    assert (command.parameters.seed, content.stop, content.metadata) == (3, ("x",), {"a": "b"})
    assert command.title is not None
    assert opened(command.title, KEY, TitleContent).title == "i"
    assert command.keeps_content


@pytest.mark.parametrize(
    ("said", "title"),
    [
        ([("system", "Be brief."), ("user", "  Why is\n the sky blue? ")], "Why is the sky blue?"),
        ([("user", "x" * 59 + " yes")], "x" * 59),
        ([("user", " ")], None),
        ([("system", "Be brief.")], None),
    ],
)
def test_a_conversation_is_called_what_a_user_said_first(said: list[tuple[Role, str]], title: str | None) -> None:
    found = title_of([ChatMessage(role=role, content=text) for role, text in said])
    assert (found and found.title) == title


def test_tokens_are_estimated_by_characters_and_pictures() -> None:
    picture = (TextPart(text="12345"), ImagePart(url="https://example.com/a.png"))
    said = PromptContent(messages=(ChatMessage(role="user", content="1234"),))
    pool = PoolSettings(backend="openai", models=("m",))
    shown = PromptContent(messages=(*said.messages, ChatMessage(role="user", content=picture)))
    assert input_tokens(said, pool, "m") < 20
    assert 1000 < input_tokens(shown, pool, "m") - input_tokens(said, pool, "m") < 1020


@given(st.uuids(), st.integers(1, 64))
def test_a_tenant_has_two_lanes_wherever_there_are_two_partitions(tenant: Any, partitions: int) -> None:
    first, second = lanes(tenant, partitions)
    assert 0 <= first < partitions
    assert 0 <= second < partitions
    assert (first != second) == (partitions > 1)
    assert lanes(tenant, partitions) == (first, second)


@given(st.uuids(), st.lists(st.integers(0, 1000), min_size=1, max_size=16))
def test_the_emptier_lane_is_taken(tenant: Any, backlog: list[int]) -> None:
    assert backlog[emptier(tenant, backlog)] == min(backlog[lane] for lane in lanes(tenant, len(backlog)))


TOOL = {"name": "look"}
IMAGE = {"role": "user", "content": [{"type": "image", "url": "https://example.com/a.png"}]}


@pytest.mark.parametrize(
    ("backend", "body", "field"),
    [
        ("scripted", {"input": "a", "tools": [TOOL]}, "body.tools"),
        ("scripted", {"messages": [IMAGE]}, "body.messages"),
        ("scripted", {"messages": [{"role": "tool", "content": "a", "tool_call_id": "c"}]}, "body.messages"),
        ("scripted", {"input": "a", "response_format": {}}, "body.response_format"),
        ("scripted", {"input": "a", "parameters": {"reasoning_effort": "low"}}, "body.parameters.reasoning_effort"),
        ("openai", {"input": "a", "parameters": {"top_k": 3}}, "body.parameters.top_k"),
        ("scripted", {"input": "a", "parameters": {"logprobs": True}}, "body.parameters.logprobs"),
        ("anthropic", {"input": "a", "parameters": {"logprobs": True}}, "body.parameters.logprobs"),
        ("scripted", {"input": "a", "parameters": {"logprobs": False}}, None),
        ("xllamacpp", {"input": "a", "parameters": {"logprobs": True, "top_logprobs": 20}}, None),
        ("openai", {"input": "a", "parameters": {"logprobs": True}}, None),
        ("openai", {"input": "a", "tools": [TOOL], "parameters": {"seed": 3}}, None),
        ("openai", {"messages": [IMAGE], "response_format": {"json_schema": {}}, "system": "Be brief."}, None),
    ],
)
def test_what_a_model_cannot_do_is_refused_by_name(backend: str, body: dict[str, Any], field: str | None) -> None:
    pools = {"a": PoolSettings.model_validate({"backend": backend, "models": ["m"]})}
    if field is None:
        assert admit(PromptBody.model_validate(body), Settings(pools=pools)).pool == "a"
        return
    with pytest.raises(Refused) as refused:
        admit(PromptBody.model_validate(body), Settings(pools=pools))
    assert (refused.value.type, refused.value.field) == ("unsupported-by-model", field)


def test_a_pool_says_what_its_models_and_its_server_can_do() -> None:
    compatible = PoolSettings.model_validate(
        {"backend": "openai", "models": ["m"], "base_url": "http://127.0.0.1:1/v1", "without": ["images"]}
    )
    assert "top_k" in compatible.capabilities
    with pytest.raises(Refused, match="m does not take images"):
        admit(PromptBody.model_validate({"messages": [IMAGE]}), Settings(pools={"a": compatible}))


def test_only_those_that_can_do_what_is_asked_are_fallbacks() -> None:
    given = {
        "cloud": {"backend": "openai", "models": ["big"], "fallbacks": ["local", "tight", "big", "local", "other"]},
        "local": {"backend": "scripted", "models": ["plain"]},
        "tight": {"backend": "scripted", "models": ["narrow"], "context_window": 16},
        "more": {"backend": "openai", "models": ["other"]},
    }
    chain = Settings.model_validate({"pools": given})

    def models(**body: Any) -> list[str]:
        return [one.model for one in admit(PromptBody.model_validate({"model": "big", **body}), chain).fallbacks]

    assert models(input="a") == ["plain", "narrow", "other"]
    assert models(input="a" * 1000) == ["plain", "other"]
    assert models(input="a", tools=[{"name": "look", "parameters": {}}]) == ["other"]
    assert admit(PromptBody.model_validate({"model": "plain", "input": "a"}), chain).fallbacks == ()
