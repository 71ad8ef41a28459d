from __future__ import annotations

from collections.abc import AsyncIterator

from cli.event_stream import ServerSentEvent, events


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
