from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_schemas.logprobs import TokenLogprob
from workers.inference.port import Delta
from workers.scratchpad import Scratchpad


def _told(*pieces: str) -> tuple[list[str], str]:
    scratchpad = Scratchpad()
    shown = [[delta.text for delta in scratchpad.feed(Delta(piece))] for piece in pieces]
    last = [delta.text for delta in scratchpad.rest()]
    return ["".join(each) for each in (*shown, last)], scratchpad.text


def _cut(text: str) -> str:
    """``text`` without the parts, by a reading of the whole that knows nothing of deltas."""
    depth, kept = 0, ""
    for part in re.split(r"(</?scratchpad>)", text, flags=re.IGNORECASE | re.ASCII):
        if part.lower() == "<scratchpad>":
            depth += 1
        elif part.lower() == "</scratchpad>" and depth:
            depth -= 1
        elif not depth:
            kept += part
    return kept


@pytest.mark.parametrize(
    ("pieces", "shown", "thought"),
    [
        (["Hi ", "there"], ["Hi ", "there", ""], ""),
        (["a<scratchpad>b</scratchpad>c"], ["ac", ""], "b"),
        (["a<scr", "atch", "pad>b</scr", "atchpad>c"], ["a", "", "", "c", ""], "b"),
        (["a<scr", "ew>"], ["a", "<screw>", ""], ""),
        (["a <", "b"], ["a ", "<b", ""], ""),
        (["a<scratch"], ["a", "<scratch"], ""),
        (["a<SCRATCHPAD>b</ScratchPad>c"], ["ac", ""], "b"),
        (["a<scratchpad>b<scratchpad>c</scratchpad>d</scratchpad>e"], ["ae", ""], "b<scratchpad>c</scratchpad>d"),
        (["a<scratchpad>never", " closed</scratch"], ["a", "", ""], "never closed</scratch"),
        (["a</scratchpad>b"], ["a</scratchpad>b", ""], ""),
        (["<<scratchpad>b</scratchpad>>"], ["<>", ""], "b"),
        (["<ſcratchpad>b"], ["<ſcratchpad>b", ""], ""),
    ],
)
def test_what_is_shown_and_what_is_kept(pieces: list[str], shown: list[str], thought: str) -> None:
    assert _told(*pieces) == (shown, thought)


_PARTS = st.sampled_from(
    ["<scratchpad>", "</scratchpad>", "<Scratchpad>", "<scratch", "</", "<", ">", "pad>", "x", "İ"]
)


@given(st.lists(_PARTS, max_size=12).map("".join), st.data())
def test_any_text_in_any_pieces_is_shown_without_its_parts(text: str, data: st.DataObject) -> None:
    ends = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]
    shown, thought = _told(*pieces)
    assert "".join(shown) == _cut(text)
    whole, whole_thought = _told(text)
    assert ("".join(whole), whole_thought) == ("".join(shown), thought)
    so_far, told = "", ""
    for piece, said in zip(pieces, shown, strict=False):
        so_far, told = so_far + piece, told + said
        # What is not shown yet of what is sure is no longer than a tag that may have begun.
        assert _cut(so_far).startswith(told)
        assert len(_cut(so_far)) - len(told) < len("<scratchpad>")


def _token(text: str) -> TokenLogprob:
    return {"token": text, "logprob": -0.5, "top_logprobs": []}


@given(st.lists(st.sampled_from(["a", "<scratchpad>", "</scratchpad>", "<", "b<scr", "atchpad>c", ""]), max_size=12))
def test_logprobs_are_those_of_deltas_that_are_shown_whole(pieces: list[str]) -> None:
    scratchpad = Scratchpad()
    shown: list[Delta] = []
    for number, piece in enumerate(pieces):
        shown += scratchpad.feed(Delta(piece, [_token(f"{number}")]))
    shown += scratchpad.rest()
    told = [int(token["token"]) for delta in shown for token in delta.logprobs]
    assert told == sorted(set(told))
    # Each character by itself: whether it is shown, found by the deltas one by one with nothing in front of them cut.
    text = "".join(pieces)
    assert "".join(delta.text for delta in shown) == _cut(text)
    at = 0
    visible = _visible(text)
    for number, piece in enumerate(pieces):
        if piece:
            assert (number in told) == all(visible[at : at + len(piece)])
        at += len(piece)


def _visible(text: str) -> list[bool]:
    depth = 0
    seen: list[bool] = []
    for part in re.split(r"(</?scratchpad>)", text, flags=re.IGNORECASE | re.ASCII):
        is_open, is_close = part.lower() == "<scratchpad>", part.lower() == "</scratchpad>" and depth > 0
        depth += is_open - (is_close and not is_open)
        seen += [depth == 0 and not is_open and not is_close] * len(part)
    return seen
