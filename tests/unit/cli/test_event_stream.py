from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from cli.event_stream import ServerSentEvent, events, lines_of


async def lines(*given: str) -> AsyncIterator[str]:
    for line in given:
        yield line


async def test_events_end_at_an_empty_line() -> None:
    stream = lines("id: 1-2", "event: token", "data: {", "data: }", "", ": comment", "", "data:bare", "")
    assert [event async for event in events(stream)] == [
        ServerSentEvent("token", "{\n}", "1-2"),
        ServerSentEvent("message", "bare", None),
    ]


async def test_what_a_broken_connection_cut_off_is_dropped() -> None:
    assert [event async for event in events(lines("data: whole", "", "id: 1-3", "data: ha"))] == [
        ServerSentEvent("message", "whole", None)
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
async def test_lines_end_where_the_standard_ends_them_and_nowhere_else(size: int) -> None:
    # str.splitlines would cut at each of the characters in the first line, and JSON may hold them as they are.
    text = "data: a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\nid: 1\r\nevent: x\r\r\n\ndata: cut off"
    chunks = lines(*(text[begin : begin + size] for begin in range(0, len(text), size)))
    assert [line async for line in lines_of(chunks)] == [
        "data: a\u2028b\u2029c\x85d\x0be\x0cf\x1cg",
        "id: 1",
        "event: x",
        "",
        "",
    ]


async def test_a_last_line_may_end_with_a_carriage_return() -> None:
    assert [line async for line in lines_of(lines("data: a\r", "\r"))] == ["data: a", ""]
