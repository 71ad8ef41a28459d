from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from benches.events import Event, EventParser

STREAM = (
    b': ping\n\nid: 1-0\nevent: started\ndata: {"attempt":1}\n\n'
    b'id: 1-1\nevent: token\ndata: {"text":"a: b\\n\\n","seq":1}\n\n'
    b": ping\n\n"
    b'id: 1-1\nevent: completed\ndata: {"finish_reason":"stop"}\n\n'
)
EVENTS = [
    Event(b"started", b"1-0", b'{"attempt":1}'),
    Event(b"token", b"1-1", b'{"text":"a: b\\n\\n","seq":1}'),
    Event(b"completed", b"1-1", b'{"finish_reason":"stop"}'),
]


@given(st.sets(st.integers(min_value=1, max_value=len(STREAM) - 1)))
def test_pieces_do_not_matter(cuts: set[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    parser = EventParser()
    events = [event for start, end in pairwise(edges) for event in parser.feed(STREAM[start:end])]
    assert events == EVENTS


def test_an_event_is_told_with_its_last_byte() -> None:
    parser = EventParser()
    assert parser.feed(b"event: token\nid: 1-1\ndata: {}\n") == []
    assert parser.feed(b"\nevent: tok") == [Event(b"token", b"1-1", b"{}")]
