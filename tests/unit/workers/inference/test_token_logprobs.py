from __future__ import annotations

from typing import Any

import pytest

from event_schemas.generation import Parameters
from workers.inference.llamacpp_wire import Ending as EngineEnding
from workers.inference.llamacpp_wire import read_chunk as read_engine_chunk
from workers.inference.openai_wire import Ending, read_chunk
from workers.inference.port import Delta, Item, Reasoning
from workers.inference.token_logprobs import read, wanted

HELLO = {"token": "Hello", "logprob": -0.25, "bytes": [72, 101, 108, 108, 111]}
HI = {"token": "Hi", "logprob": -1.5, "bytes": [72, 105]}


def told(**token: Any) -> dict[str, Any]:
    return {"content": [HELLO | {"top_logprobs": [HELLO, HI]} | token]}


def chunk(delta: dict[str, Any], logprobs: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": None}]}


def items(*chunks: dict[str, Any], top: int | None = 1) -> list[Item]:
    ending = Ending(top_logprobs=top)
    return [item for one in chunks for item in read_chunk(one, ending)]


@pytest.mark.parametrize(
    ("given", "count"),
    [({}, None), ({"logprobs": True}, 0), ({"logprobs": True, "top_logprobs": 3}, 3)],
)
def test_how_many_are_wanted(given: dict[str, Any], count: int | None) -> None:
    assert wanted(Parameters(**given)) == count


def test_bytes_that_the_text_says_already_are_left_out() -> None:
    others = [{"token": "Hello", "logprob": -0.25}, {"token": "Hi", "logprob": -1.5}]
    assert read(told(), 2) == [{"token": "Hello", "logprob": -0.25, "top_logprobs": others}]
    assert read(told(), 1)[0]["top_logprobs"] == others[:1]
    assert read(told(), 0)[0]["top_logprobs"] == []


def test_half_a_character_keeps_its_bytes_and_a_nul_can_be_stored() -> None:
    (half,) = read(told(token="\ufffd", bytes=[0xC3]), 0)
    assert (half["token"], half["bytes"]) == ("\ufffd", [0xC3])
    (nul,) = read(told(token="a\0", bytes=[97, 0]), 0)
    assert (nul["token"], nul["bytes"]) == ("a\ufffd", [97, 0])
    (without,) = read(told(bytes=None), 0)
    assert "bytes" not in without


@pytest.mark.parametrize("nothing", [None, {}, {"content": None}, {"content": [], "refusal": None}])
def test_there_may_be_none(nothing: Any) -> None:
    assert read(nothing, 2) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"logprob": None},
        {"logprob": "likely"},
        {"logprob": float("inf")},
        {"token": None},
        {"bytes": [256]},
        {"bytes": ["a"]},
        {"top_logprobs": [{"token": "a"}]},
    ],
    ids=str,
)
def test_what_is_no_logprob_is_not_taken(wrong: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError, AttributeError, KeyError)):
        read(told(**wrong), 2)


def test_chunks_of_a_provider() -> None:
    hello = read(told(), 1)
    assert items(chunk({"content": "Hello"}, told())) == [Delta("Hello", hello)]
    assert items(chunk({"content": "Hello"}, told()), top=None) == [Delta("Hello")]
    # A refusal is text, too. A server may hold text back whose tokens it tells.
    assert items(chunk({"refusal": "Hello"}, {"content": None, "refusal": told()["content"]})) == [
        Delta("Hello", hello)
    ]
    assert items(chunk({"content": ""}, told())) == [Delta("", hello)]
    assert items(chunk({"role": "assistant", "content": ""}, {"content": []}), chunk({}, None)) == []


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_those_of_what_is_thought_are_not_the_texts(name: str) -> None:
    assert items(chunk({name: "Hello", "content": None}, told())) == [Reasoning("Hello")]


def test_chunks_of_the_local_engine() -> None:
    ending = EngineEnding(top_logprobs=0)
    said = '{"token":"%s","bytes":[%s],"logprob":-1,"top_logprobs":[{"token":"a","bytes":[97],"logprob":-1}]}'
    text = '{"choices":[{"text":"a","logprobs":{"content":[%s]},"finish_reason":null}]}' % (said % ("a", 97))
    assert read_engine_chunk(text, ending) == "a"
    assert ending.logprobs == [{"token": "a", "logprob": -1.0, "top_logprobs": []}]
    assert read_engine_chunk('{"choices":[{"text":"","logprobs":null,"finish_reason":"stop"}]}', ending) == ""
    assert ending.logprobs == []
