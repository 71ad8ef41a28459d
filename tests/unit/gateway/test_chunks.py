"""Chunks of OpenAI's streams, put together by hand."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from event_schemas.chat import Piece, text_of
from gateway.openai.chunks import Chunks, event

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
LIKELY = {"token": "é", "logprob": -0.5, "top_logprobs": [{"token": "e", "logprob": -1.5}]}
PIECES: st.SearchStrategy[list[Piece]] = st.lists(
    st.one_of(
        TEXT,
        st.builds(lambda words: {"reasoning": words}, TEXT),
        st.builds(lambda words: {"text": words, "logprobs": [LIKELY]}, TEXT),
        st.builds(lambda words: {"tool_call": 0, "id": "call_1", "name": "look", "arguments": words}, TEXT),
        st.builds(lambda words: {"tool_call": 0, "arguments": words}, TEXT),
    )
)


def parsed(line: bytes) -> Any:
    assert line.startswith(b"data: ")
    assert line.endswith(b"\n\n")
    assert line.count(b"\n") == 2
    return json.loads(line[6:])


@given(PIECES, st.integers(0, 15), st.booleans())
def test_nothing_is_lost_and_no_delta_has_a_null(pieces: list[Piece], index: int, usage_is_null: bool) -> None:
    chunks = Chunks("chatcmpl-1", 7, 'a "model"', usage_is_null)
    told = [parsed(line) for line in chunks.tokens(index, pieces)]
    choices = [one["choices"][0] for one in told]
    deltas = [one["delta"] for one in choices]
    assert "".join(one.get("content", "") for one in deltas) == text_of(pieces)
    others = [piece for piece in pieces if isinstance(piece, dict) and "text" not in piece]
    assert [one for one in deltas if "content" not in one] == [_wire(piece) for piece in others]
    likely = [token for one in choices if one["logprobs"] for token in one["logprobs"]["content"]]
    assert len(likely) == sum(isinstance(piece, dict) and "text" in piece for piece in pieces)
    assert all(one["bytes"] == [0xC3, 0xA9] for one in likely)
    assert None not in [value for one in deltas for value in one.values()]
    assert {(one["id"], one["created"], one["model"], one["object"]) for one in told} <= {
        ("chatcmpl-1", 7, 'a "model"', "chat.completion.chunk")
    }
    assert {choice["index"] for choice in choices} <= {index}
    assert all(("usage" in one) == usage_is_null for one in told)


def _wire(piece: Any) -> dict[str, Any]:
    if "reasoning" in piece:
        return {"reasoning_content": piece["reasoning"]}
    function = {name: piece[name] for name in ("name", "arguments") if name in piece}
    call = {"index": 0, "id": "call_1", "type": "function"} if "id" in piece else {"index": 0}
    return {"tool_calls": [call | {"function": function}]}


def test_a_stream_begins_ends_and_says_what_was_used() -> None:
    chunks = Chunks("chatcmpl-1", 7, "m", usage_is_null=True)
    begin, finish, used = (
        parsed(line) for line in (chunks.begin(0), chunks.finish(0, "tool_calls"), chunks.usage({"total_tokens": 3}))
    )
    assert begin["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert (finish["choices"][0]["delta"], finish["choices"][0]["finish_reason"]) == ({}, "tool_calls")
    assert (used["choices"], used["usage"]) == ([], {"total_tokens": 3})
    assert parsed(event({"error": "é"})) == {"error": "é"}
