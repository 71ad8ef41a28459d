"""From the pieces of an answer to Anthropic's message, and to the events of its stream."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_schemas.chat import Piece
from gateway.anthropic.answer import BrokenInput, content, stopped, usage
from gateway.anthropic.events import Events

USED = {"input_tokens": 9, "output_tokens": 4, "cached_input_tokens": 3, "reasoning_tokens": 1}


def call(number: int, arguments: str, *, begins: bool = False) -> Piece:
    if begins:
        return {"tool_call": number, "arguments": arguments, "id": f"t{number}", "name": f"tool{number}"}
    return {"tool_call": number, "arguments": arguments}


def told(*steps: Sequence[Piece], shows_thinking: bool = True, reason: str = "stop") -> list[dict[str, Any]]:
    """The data of all events."""
    events = Events("msg_1", "m", shows_thinking=shows_thinking)
    raw = [
        events.begin(),
        *(one for step in steps for one in events.tokens(step)),
        *events.finish({"finish_reason": reason, "usage": USED}),
    ]
    found = []
    for one in raw:
        name, data = one.decode().removesuffix("\n\n").split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def assembled(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The blocks that a strict client makes of the events: one is open at a time, and they come in order."""
    blocks: list[dict[str, Any]] = []
    open_, arguments = False, ""
    for event in events:
        match event["type"]:
            case "content_block_start":
                assert not open_
                assert event["index"] == len(blocks)
                blocks.append(event["content_block"])
                open_, arguments = True, ""
            case "content_block_delta":
                assert open_
                assert event["index"] == len(blocks) - 1
                block, delta = blocks[-1], event["delta"]
                match block["type"], delta["type"]:
                    case ("text", "text_delta") | ("thinking", "thinking_delta"):
                        block[block["type"]] += delta[block["type"]]
                    case ("tool_use", "input_json_delta"):
                        arguments += delta["partial_json"]
                    case wrong:
                        raise AssertionError(wrong)
            case "content_block_stop":
                assert open_
                assert event["index"] == len(blocks) - 1
                open_ = False
                if arguments:
                    blocks[-1]["input"] = json.loads(arguments)
    assert not open_
    return blocks


def test_each_kind_has_a_block_of_its_own_in_order() -> None:
    steps: list[list[Piece]] = [
        [{"reasoning": "h"}, {"reasoning": "m"}, "I ", "lo"],
        ["ok", {"text": ".", "logprobs": []}, call(0, '{"a":', begins=True)],
        [call(0, "1}"), call(1, "", begins=True)],
    ]
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "t0", "name": "tool0", "input": {"a": 1}},
        {"type": "tool_use", "id": "t1", "name": "tool1", "input": {}},
    ]
    events = told(*steps, reason="tool_calls")
    assert assembled(events) == blocks
    assert content([piece for step in steps for piece in step], "tool_calls", shows_thinking=True) == blocks
    # What comes at once is told at once.
    assert [one["delta"] for one in events if one["type"] == "content_block_delta"][:2] == [
        {"type": "thinking_delta", "thinking": "hm"},
        {"type": "text_delta", "text": "I lo"},
    ]
    assert [one["type"] for one in events].count("ping") == 1


def test_it_begins_without_and_ends_with_what_it_used() -> None:
    begun, *_, last, stopped = told(["a"], reason="length")
    assert begun["message"]["usage"] == usage({"input_tokens": 0, "output_tokens": 0})
    assert last == {
        "type": "message_delta",
        "delta": {"stop_reason": "max_tokens", "stop_sequence": None},
        "usage": {
            "input_tokens": 6,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 3,
            "output_tokens": 4,
            "output_tokens_details": {"thinking_tokens": 1},
        },
    }
    assert stopped == {"type": "message_stop"}


def test_an_answer_without_a_word_has_no_block() -> None:
    assert [one["type"] for one in told([""])] == ["message_start", "message_delta", "message_stop"]
    assert content([""], "stop", shows_thinking=True) == []


def test_what_was_thought_is_left_out_where_nobody_wants_it() -> None:
    pieces: list[Piece] = [{"reasoning": "hm"}, "a"]
    assert assembled(told(pieces, shows_thinking=False)) == [{"type": "text", "text": "a"}]
    assert content(pieces, "stop", shows_thinking=False) == [{"type": "text", "text": "a"}]


@given(st.lists(st.integers(0, 2), max_size=60), st.integers(1, 4))
def test_calls_that_come_by_turns_are_told_one_after_another(turns: list[int], length: int) -> None:
    left = {number: json.dumps({"said": f'"}} {number} {{' * (number + 1)}) for number in range(3)}
    pieces: list[Piece] = [call(number, "", begins=True) for number in range(3)]
    for number in [*turns, *(at for at in range(3) for _ in range(200))]:
        if left[number]:
            pieces.append(call(number, left[number][:length]))
            left[number] = left[number][length:]
    blocks = assembled(told(pieces, reason="tool_calls"))
    assert [one["id"] for one in blocks] == ["t0", "t1", "t2"]
    assert [one["input"] for one in blocks] == [{"said": f'"}} {n} {{' * (n + 1)} for n in range(3)]
    assert content(pieces, "tool_calls", shows_thinking=True) == blocks


def test_an_open_call_holds_up_what_comes_after_it_only_until_it_is_whole() -> None:
    events = Events("msg_1", "m", shows_thinking=True)
    assert len([*events.tokens([call(0, '{"a"', begins=True)])]) == 3  # with the ping
    assert [*events.tokens([call(1, "{}", begins=True)])] == []
    assert len([*events.tokens([call(0, ":1}")])]) == 4


def test_an_input_that_is_no_json_is_an_error_unless_it_was_cut_off() -> None:
    pieces = [call(0, '{"a": "secret', begins=True)]
    assert content(pieces, "length", shows_thinking=True)[0]["input"] == {}
    with pytest.raises(BrokenInput) as broken:
        content(pieces, "tool_calls", shows_thinking=True)
    assert "tool0" in str(broken.value)
    assert "secret" not in str(broken.value)
    with pytest.raises(BrokenInput):
        content([call(0, "[1]", begins=True)], "tool_calls", shows_thinking=True)


@pytest.mark.parametrize(
    ("finish", "stop"),
    [("stop", "end_turn"), ("length", "max_tokens"), ("tool_calls", "tool_use"), ("content_filter", "refusal")],
)
def test_why_it_stopped(finish: str, stop: str) -> None:
    assert stopped({"finish_reason": finish}, ["."]) == {"stop_reason": stop, "stop_sequence": None}


def test_a_stop_sequence_that_is_known_is_told() -> None:
    completed = {"finish_reason": "stop", "stopped_by": 1}
    assert stopped(completed, [".", "!"]) == {"stop_reason": "stop_sequence", "stop_sequence": "!"}
