"""The object that an answer is, for who follows it: its place in the text is known when it ends, and the text was told
in pieces, maybe to somebody else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from backplane.ports.database import DatabaseUnavailable
from backplane.ports.key_wrapping import WrappingUnavailable
from backplane.ports.token_stream import Cursor, Frame, StreamReader, StreamUnavailable
from event_schemas.chat import text_of
from query_api.assembly import TOKEN, Assembly, Step
from query_api.following import Record
from query_api.opening import cut

_DEADLINE_S = 5.0
_POLL_S = 0.25


async def parsed(step: Step, streams: StreamReader, record: Record, tenant_id: UUID, generation_id: UUID) -> Step:
    """``step``, an ending that knows where in its text the JSON stands, with that JSON.

    Null where the text is nowhere any more. Never raises for an outage.
    """
    detail = {name: value for name, value in step.detail.items() if name != "json_span"}
    span: Sequence[int] = step.detail["json_span"]
    text = ""
    with suppress(StreamUnavailable):
        text = _text(await streams.backlog(tenant_id, generation_id), step.cursor)
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + _DEADLINE_S
    while len(text) < span[1] and loop.time() < give_up_at:
        # The record may be a moment behind.
        with suppress(DatabaseUnavailable, WrappingUnavailable):
            text = _text(await record.since(Cursor(step.cursor.attempt, 0)), step.cursor)
        if len(text) < span[1]:
            await asyncio.sleep(_POLL_S)
    return step._replace(detail=detail | {"parsed": cut(text, span) if len(text) >= span[1] else None})


def _text(frames: Sequence[Frame], end: Cursor) -> str:
    assembly = Assembly(Cursor(end.attempt, 0))
    said = [frame for frame in frames if frame.attempt == end.attempt and not frame.kind.terminal]
    steps = [step for frame in said for step in assembly.take(frame)]
    return "".join(text_of(step.deltas) for step in steps if step.event == TOKEN)
