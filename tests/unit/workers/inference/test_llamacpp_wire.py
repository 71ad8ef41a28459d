from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from event_schemas.chat import ChatMessage, ImagePart, ResponseFormat, ToolCall
from event_schemas.generation import Parameters
from tests.contract.inference.requests import request
from workers.inference.llamacpp_wire import Ending, engine_error, engine_failure, read_chunk, request_body
from workers.inference.port import BackendUnavailable, InferenceRequest, RequestRefused
from workers.inference.transcript import STOP_STRINGS, render


def _body(one: InferenceRequest, *, chat_template: bool = False) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(request_body(one, window=512, chat_template=chat_template))
    return body


def test_the_transcript() -> None:
    messages = (
        ChatMessage(role="system", content="Be brief."),
        ChatMessage(role="user", content="Hi"),
        ChatMessage(role="assistant", content="Hello"),
        ChatMessage(role="user", content="Bye"),
    )
    assert render(messages) == "System: Be brief.\nUser: Hi\nAssistant: Hello\nUser: Bye\nAssistant:"


def test_parameters_go_by_the_engines_names() -> None:
    parameters = Parameters(
        temperature=0.5, top_p=0.9, top_k=3, min_p=0.1, presence_penalty=1, frequency_penalty=2, max_tokens=7, seed=5
    )
    wanted = parameters.model_dump(exclude_none=True, exclude={"stop", "logprobs"})
    assert wanted.items() <= _body(request(parameters=parameters)).items()


@pytest.mark.parametrize(("top", "others"), [(None, 1), (0, 1), (5, 5)])
def test_logprobs_go_by_the_names_of_each_endpoint(top: int | None, others: int) -> None:
    wanted = request(parameters=Parameters(logprobs=True, top_logprobs=top))
    assert _body(wanted)["logprobs"] == others
    body = _body(wanted, chat_template=True)
    assert (body["logprobs"], body["top_logprobs"]) == (True, others)
    assert not {"logprobs", "top_logprobs"} & _body(request(), chat_template=True).keys()


def test_what_is_not_given_is_left_to_the_engine_but_the_length_is_bounded() -> None:
    body = _body(request(parameters=Parameters()))
    assert not {"temperature", "seed", "top_p"} & body.keys()
    assert body["max_tokens"] == 512
    assert _body(request(parameters=Parameters(max_tokens=10**9)))["max_tokens"] == 512


def test_stop_strings_join_the_templates() -> None:
    stops = ("END", "", STOP_STRINGS[0])
    assert _body(request(stop=stops))["stop"] == [*STOP_STRINGS, "END"]
    assert _body(request(stop=stops), chat_template=True)["stop"] == ["END", STOP_STRINGS[0]]
    assert "stop" not in _body(request(), chat_template=True)


def test_a_model_with_a_template_gets_the_messages() -> None:
    body = _body(request("Hi 🦄"), chat_template=True)
    assert body["messages"] == [{"role": "user", "content": "Hi 🦄"}]
    assert "prompt" not in body


@pytest.mark.parametrize("seed", [0, 2**32 - 1, 2**63, -1])
def test_every_seed_is_one_that_the_engine_keeps(seed: int) -> None:
    assert 0 <= _body(request(parameters=Parameters(seed=seed)))["seed"] < 2**32 - 1


def test_chunks() -> None:
    ending = Ending()
    progress = '{"choices":[{"text":"","finish_reason":null}],"prompt_progress":{"total":9}}'
    assert read_chunk(progress, ending) == ""
    assert ending.input_tokens == 9
    assert read_chunk('{"choices":[{"text":"a","finish_reason":null}]}', ending) == "a"
    assert read_chunk('{"choices":[{"delta":{"role":"assistant","content":null},"finish_reason":null}]}', ending) == ""
    assert read_chunk('{"choices":[{"delta":{},"finish_reason":"length"}]}', ending) == ""
    assert read_chunk('{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2}}', ending) == ""
    assert ending == Ending(9, 2, "length", None)


def test_errors_say_nothing_of_the_prompt() -> None:
    long = engine_error({"type": "exceed_context_size_error", "code": 400, "n_prompt_tokens": 700}, 512)
    assert (type(long), long.reason) == (RequestRefused, "context_length_exceeded")
    assert "700" in str(long)
    refused = engine_error({"type": "invalid_request_error", "code": 400, "message": "secret"}, 512)
    assert (type(refused), refused.reason) == (RequestRefused, "invalid_request")
    failed = engine_error({"type": "server_error", "code": 500, "message": "secret"}, 512)
    assert (type(failed), failed.reason) == (BackendUnavailable, "engine_failed")
    assert not any("secret" in str(error) for error in (refused, failed))


def test_a_template_that_objects_is_a_refusal_and_a_broken_engine_is_not() -> None:
    assert isinstance(engine_failure(RuntimeError("secret"), begun=False), RequestRefused)
    assert isinstance(engine_failure(RuntimeError("secret"), begun=True), BackendUnavailable)
    assert isinstance(engine_failure(MemoryError(), begun=False), BackendUnavailable)


@pytest.mark.parametrize(
    "message",
    [
        ChatMessage(role="user", content=(ImagePart(url="https://example.com/a.png"),)),
        ChatMessage(role="assistant", content="", tool_calls=(ToolCall(id="c", name="look", arguments="{}"),)),
        ChatMessage(role="tool", content="A cat", tool_call_id="c"),
    ],
    ids=["image", "tool call", "what a tool said"],
)
def test_what_another_model_took_is_not_silently_left_out(message: ChatMessage) -> None:
    with pytest.raises(RequestRefused) as refused:
        request_body(request(message, "And now?"), window=64, chat_template=True)
    assert refused.value.reason == "unsupported"


@pytest.mark.parametrize("chat_template", [False, True])
def test_a_schema_is_what_the_engine_is_held_to_without_blanks(chat_template: bool) -> None:
    wanted = ResponseFormat(json_schema={"type": "object", "properties": {"b": {}, "a": {}}})
    body = _body(replace(request(), response_format=wanted), chat_template=chat_template)
    assert {name: value for name, value in body["json_schema"].items() if name != "x-guidance"} == wanted.json_schema
    assert list(body["json_schema"]["properties"]) == ["b", "a"]
    assert body["json_schema"]["x-guidance"]["whitespace_flexible"] is False
    assert "json_schema" not in _body(request(), chat_template=chat_template)
