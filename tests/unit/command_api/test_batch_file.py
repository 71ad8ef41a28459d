"""Files of batches, whatever pieces they come in."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from command_api.batch_file import BatchFile, UnusableFile


def line(custom_id: str = "a", **changed: Any) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": "Why?\nÖ"}]}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body} | changed


def jsonl(*lines: object) -> bytes:
    return "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines).encode()


def problems(raw: bytes, most_lines: int = 100, most_line_bytes: int = 1000) -> list[tuple[int, str]]:
    file = BatchFile(most_lines, most_line_bytes)
    with pytest.raises(UnusableFile) as unusable:
        file.feed(raw)
        file.end()
    return unusable.value.problems


@given(st.lists(st.integers(1, 300), max_size=20))
def test_a_line_is_the_same_however_the_file_is_cut(cuts: list[int]) -> None:
    raw = jsonl(line("a"), "", line("b", body={"n": 1}), line("c"))[:-1]
    file, found = BatchFile(100, 1000), []
    for cut in cuts:
        found += file.feed(raw[:cut])
        raw = raw[cut:]
    found += file.feed(raw) + file.end()
    assert [(one.number, one.content.custom_id) for one in found] == [(1, "a"), (3, "b"), (4, "c")]
    assert json.loads(found[0].content.body) == line()["body"]
    assert json.loads(found[1].content.body) == {"n": 1}
    assert file.total == 3


@pytest.mark.parametrize(
    ("second", "what"),
    [
        ("{", "is not JSON"),
        ("[]", "the line: "),
        (line("b", method="GET"), "method: "),
        (line("b", url="/v1/embeddings"), "url: "),
        (line("b", body="text"), "body: "),
        (line(""), "custom_id: "),
        (line("\0"), "custom_id: "),
        (line("b", extra=1), "extra: "),
        (line("a"), "custom_id: is that of line 1, too"),
        (line("b", body={"long": "x" * 1000}), "has over 1000 bytes"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(second: object, what: str) -> None:
    ((number, said),) = problems(jsonl(line("a"), second))
    assert number == 2
    assert said.startswith(what)


def test_all_that_is_wrong_is_said_at_once_and_not_more_than_ten() -> None:
    assert [number for number, _ in problems(jsonl("x", line("a"), "y"))] == [1, 3]
    assert len(problems(jsonl(*["x"] * 50))) == 10


def test_a_file_may_be_too_long_or_have_nothing_in_it() -> None:
    assert problems(b"\n \n") == [(0, "The file has no line.")]
    assert problems(jsonl(line("a"), line("b"), line("c")), most_lines=2)[0][1].startswith("The file has over 2 lines")


def test_a_line_without_an_end_is_not_waited_for() -> None:
    file = BatchFile(100, 1000)
    with pytest.raises(UnusableFile):
        for _ in range(1000):
            file.feed(b"x" * 100)


def test_after_a_fault_no_line_is_given_any_more() -> None:
    file = BatchFile(100, 1000)
    assert file.feed(jsonl("x")) == []
    assert file.feed(jsonl(line("a"))) == []
