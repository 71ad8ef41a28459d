"""A finished answer streams as it did while it was written, whatever came in it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backplane.adapters.redis import frames
from backplane.ports.token_stream import Frame, Kind
from backplane.security.content import opened_row
from event_schemas.chat import Piece
from event_schemas.codec import decode, encode
from event_schemas.generation import TokensContent
from query_api.record import MOST_DELTAS, finished_tokens
from tests.data_keys import read
from tests.unit.event_schemas.test_chat import engine_deltas
from tests.unit.projections.story import Story, folded
from workers.deltas import Deltas
from workers.inference.port import Delta, Reasoning, ToolCallDelta


@given(engine_deltas, st.integers(0, 20), st.integers(1, 7))
def test_live_batched_and_finished_answers_are_the_same(
    deltas: list[Delta | Reasoning | ToolCallDelta], after: int, batch: int
) -> None:
    taken = Deltas()
    live: list[Piece] = []
    batches: list[Piece] = []
    story = Story()
    prompt = story.prompt()
    generation_id = prompt.data.generation_id
    for delta in deltas:
        seq, piece = taken.append(delta)
        live += frames.decode(frames.encode(Frame(Kind.TOKEN, 1, seq, (piece,)))).deltas
        if seq % batch == 0 and (emitted := taken.take()):
            fact = decode(encode(story.emitted(generation_id, *emitted)))
            (row,) = folded([fact])["token_batches"].values()
            assert row["first_seq"] == len(batches) + 1
            said = read(row["content"], story.key, TokensContent)
            assert row["count"] == len(said.deltas)
            batches += said.pieces
    assert batches == live[: len(batches)]
    ended = decode(encode(story.ended(generation_id, deltas=live)))
    row = folded([prompt, ended])["messages"][story.tenant_id, generation_id]
    if not live:
        assert row["answer"] is None
        return
    finished = list(finished_tokens(1, opened_row(row["answer"], story.key), after))
    assert [piece for frame in finished for piece in frame.deltas] == live[after:]
    assert [frame.seq for frame in finished][-1:] == ([len(live)] if live[after:] else [])
    assert all(len(frame.deltas) <= MOST_DELTAS for frame in finished)
