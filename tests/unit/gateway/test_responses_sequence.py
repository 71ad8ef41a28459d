"""Numbers of a response's events, and that they are the same however its answer comes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, get_args
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseStreamEvent

from backplane.ports.token_stream import Cursor
from event_schemas.chat import Piece
from gateway.responses.events import Events
from gateway.responses.output import Output
from gateway.responses.response import Response
from gateway.responses.sequence import CLOSED, HEAD, KINDS, LARGEST, Place
from query_api.assembly import RESTARTED, STARTED, TOKEN, Step

ID = UUID("01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d11")
USED = {"input_tokens": 5, "output_tokens": 2, "cached_input_tokens": 0, "reasoning_tokens": 0}

Told = dict[str, Any]

words = st.text(alphabet="ab ", max_size=3)


@st.composite
def answers(draw: st.DrawFn) -> list[Piece]:
    """Reasoning, text and calls, as models say them; some write several calls by turns."""
    pieces: list[Piece] = []
    calls = 0
    for kind in draw(st.lists(st.sampled_from(KINDS), max_size=5)):
        said = draw(st.lists(words, min_size=1, max_size=4))
        if kind == "message":
            pieces += said
        elif kind == "reasoning":
            pieces += [{"reasoning": each} for each in said]
        else:
            together = draw(st.integers(1, 3))
            for call in range(calls, calls + together):
                pieces.append({"tool_call": call, "id": f"call_{call}", "name": "f", "arguments": said[0]})
            for each in said[1:]:
                pieces.append({"tool_call": draw(st.integers(calls, calls + together - 1)), "arguments": each})
            calls += together
    return pieces


@st.composite
def cuts(draw: st.DrawFn, length: int) -> list[int]:
    return sorted(draw(st.sets(st.integers(0, length))) | {0, length})


def response() -> Response:
    return Response(ID, UUID(int=1), None, "m", None, {}, [], None, {})


def attempt_of(number: int, pieces: Sequence[Piece], at: Sequence[int], event: str = STARTED) -> list[Step]:
    """The steps of an attempt whose deltas come cut at these places."""
    steps = [Step(event, Cursor(number, 0))]
    for begin, end in pairwise(at):
        steps.append(Step(TOKEN, Cursor(number, end), pieces[begin:end]))
    return steps


def ending(number: int, pieces: Sequence[Piece]) -> Step:
    return Step("completed", Cursor(number, len(pieces)), detail={"usage": USED, "finish_reason": "stop"})


def told(steps: Iterable[Step], seen: int | None = None) -> list[Told]:
    events = Events(response(), seen)
    raw = b"".join([*events.head(), *(each for step in steps for each in events.of(step))])
    return [json.loads(line.removeprefix("data: ")) for line in raw.decode().split("\n") if line.startswith("data: ")]


def numbers(events: Iterable[Told]) -> list[int]:
    return [one["sequence_number"] for one in events]


@given(st.integers(1, 9), st.integers(0, 900), st.sampled_from(KINDS), st.integers(0, CLOSED), st.integers(0, 999))
def test_a_number_says_where_its_event_stands(attempt: int, item: int, kind: str, event: int, void: int) -> None:
    place = Place(attempt, item, kind, event, void if attempt > 1 else 0)
    assert Place.at(place.number) == place
    assert HEAD <= place.number <= LARGEST
    assert place._replace(event=event + 1).number > place.number or event == CLOSED
    assert place._replace(item=item + 1, kind=KINDS[0], event=0).number > place.number
    assert place._replace(attempt=attempt + 1, item=0, kind=KINDS[0], event=0, void=0).number > place.number


def test_an_answer_of_one_message_is_numbered_without_holes() -> None:
    events = told([*attempt_of(1, ["a ", "b"], [0, 1, 2]), ending(1, ["a ", "b"])])
    assert [(one["sequence_number"], one["type"]) for one in events] == list(
        enumerate(
            [
                "response.created",
                "response.queued",
                "response.in_progress",
                "response.output_item.added",
                "response.content_part.added",
                "response.output_text.delta",
                "response.output_text.delta",
                "response.output_text.done",
                "response.content_part.done",
                "response.output_item.done",
                "response.completed",
            ]
        )
    )


@given(st.data(), answers())
def test_numbers_are_the_same_however_deltas_are_grouped(data: st.DataObject, pieces: list[Piece]) -> None:
    one_by_one = told([*attempt_of(1, pieces, range(len(pieces) + 1)), ending(1, pieces)])
    grouped = told([*attempt_of(1, pieces, data.draw(cuts(len(pieces)))), ending(1, pieces)])
    assert grouped == one_by_one
    assert numbers(grouped) == sorted(set(numbers(grouped)))
    deltas = [one for one in grouped if one["type"].endswith(".delta")]
    assert len(deltas) == len(pieces)


@given(st.data(), answers())
def test_who_comes_back_is_told_exactly_what_follows(data: st.DataObject, pieces: list[Piece]) -> None:
    steps = [*attempt_of(1, pieces, range(len(pieces) + 1)), ending(1, pieces)]
    whole = told(steps)
    place = data.draw(st.integers(0, len(whole) - 1))
    again = [*attempt_of(1, pieces, data.draw(cuts(len(pieces)))), ending(1, pieces)]
    assert told(again, whole[place]["sequence_number"]) == whole[place + 1 :]


@given(st.data(), answers(), answers())
def test_a_restart_is_told_the_same_to_who_was_there_and_to_who_comes_back(
    data: st.DataObject, lost: list[Piece], pieces: list[Piece]
) -> None:
    """Who was there is told both attempts. Who comes back, with a number of either, is told the second one only."""
    begun = attempt_of(2, pieces, range(len(pieces) + 1), RESTARTED)
    whole = told([*attempt_of(1, lost, range(len(lost) + 1)), *begun, ending(2, pieces)])
    assert numbers(whole) == sorted(set(numbers(whole)))
    late = [*attempt_of(2, pieces, data.draw(cuts(len(pieces)))), ending(2, pieces)]
    first_of_second = next(at for at, one in enumerate(whole) if Place.at(one["sequence_number"]).attempt == 2)
    for place in data.draw(st.sets(st.integers(0, len(whole) - 2), max_size=4)):
        one = whole[place]
        again = told(late, one["sequence_number"])
        if place + 1 >= first_of_second:
            assert again == whole[place + 1 :]
        assert {
            each["output_index"] for each in again if each["type"].endswith(".added") and "item" in each
        }.isdisjoint(
            each["output_index"] for each in whole[: place + 1] if each["type"] == "response.output_item.added"
        )
        item_left = [each for each in again if Place.at(each["sequence_number"]).event == CLOSED]
        assert len(item_left) <= 1
        assert all(each["item"]["status"] == "incomplete" for each in item_left)


def test_who_saw_half_an_item_of_an_attempt_that_was_lost_is_told_that_it_is_void() -> None:
    lost: list[Piece] = [{"reasoning": "Hm"}, "Hal"]
    was_there = told([*attempt_of(1, lost, [0, 1, 2]), *attempt_of(2, ["Whole"], [0, 1], RESTARTED)])
    half = next(one for one in was_there if one["type"] == "response.output_text.delta")
    back = told(attempt_of(2, ["Whole"], [0, 1]), half["sequence_number"])
    left, added, *_, delta = back
    assert left["type"] == "response.output_item.done"
    assert (left["item"]["id"], left["item"]["status"], left["item"]["content"]) == (half["item_id"], "incomplete", [])
    assert (left["output_index"], added["output_index"], delta["output_index"]) == (1, 2, 2)
    assert delta["delta"] == "Whole"
    assert delta["item_id"] != half["item_id"]
    in_between = was_there.index(left)
    assert was_there[in_between:] == back


def test_what_nobody_heard_leaves_nothing() -> None:
    events = told([*attempt_of(1, [], [0]), *attempt_of(2, ["a"], [0, 1], RESTARTED), ending(2, ["a"])])
    assert [one["type"] for one in events[:4]] == [
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.output_item.added",
    ]
    assert events[3]["output_index"] == 0
    assert events == told([*attempt_of(2, ["a"], [0, 1]), ending(2, ["a"])])


@given(answers())
def test_the_end_has_the_items_that_were_told(pieces: list[Piece]) -> None:
    events = told([*attempt_of(1, pieces, [0, len(pieces)]), ending(1, pieces)])
    done = [one["item"] for one in events if one["type"] == "response.output_item.done"]
    assert events[-1]["response"]["output"] == done == Output.of(ID, 1, pieces, "completed")
    assert [one["output_index"] for one in events if one["type"] == "response.output_item.done"] == [*range(len(done))]


def test_every_event_is_one_of_openais() -> None:
    call: list[Piece] = [{"tool_call": 0, "id": "call_0", "name": "f", "arguments": "{}"}]
    likely: list[Piece] = [{"text": "a", "logprobs": [{"token": "a", "logprob": -0.5, "top_logprobs": []}]}]
    pieces: list[Piece] = [{"reasoning": "Hm"}, *likely, *call]
    lost: list[Piece] = [{"reasoning": "Hm"}]
    known = {
        get_args(one.model_fields["type"].annotation)[0]: one for one in get_args(get_args(ResponseStreamEvent)[0])
    }
    events = told(
        [*attempt_of(1, lost, [0, 1]), *attempt_of(2, pieces, [0, len(pieces)], RESTARTED), ending(2, pieces)]
    )
    assert len({one["type"] for one in events}) == 16
    for one in events:
        known[one["type"]].model_validate(one)


@pytest.mark.parametrize(
    ("event", "detail", "type", "status"),
    [
        ("completed", {"finish_reason": "length"}, "response.incomplete", "incomplete"),
        ("completed", {"finish_reason": "tool_calls"}, "response.completed", "completed"),
        ("failed", {"reason": "invalid_request", "detail": "No."}, "response.failed", "failed"),
        ("cancelled", {}, "response.incomplete", "cancelled"),
    ],
)
def test_endings(event: str, detail: dict[str, str], type: str, status: str) -> None:
    last = told([*attempt_of(1, ["a"], [0, 1]), Step(event, Cursor(1, 1), detail={"usage": USED, **detail})])[-1]
    assert (last["type"], last["response"]["status"]) == (type, status)
    if event == "failed":
        assert last["response"]["error"] == {"code": "invalid_prompt", "message": "invalid_request: No."}
    if status == "incomplete":
        assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    (item,) = last["response"]["output"]
    assert item["status"] == ("completed" if status == "completed" else "incomplete")
