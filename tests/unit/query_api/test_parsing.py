"""The value that an answer is, as the model wrote it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from backplane.ports.token_stream import Cursor, Frame, Kind, StreamUnavailable
from query_api import parsing, sse
from query_api.assembly import Step
from query_api.parsing import parsed

TENANT, GENERATION = UUID(int=1), UUID(int=2)
TEXT = 'Sure: {\n "n": 123456789012345678901234567890,\r\n "e": 1e400, "s": "\\ud800"} .'
SPAN = (6, len(TEXT) - 2)
ENDED = Step("completed", Cursor(2, 3), detail={"finish_reason": "stop", "json_span": [*SPAN]})


def tokens(attempt: int, seq: int, *deltas: str) -> Frame:
    return Frame(Kind.TOKEN, attempt, seq, deltas)


WHOLE = [tokens(1, 1, "void"), tokens(2, 2, TEXT[:9], TEXT[9:30]), tokens(2, 3, TEXT[30:])]


class Frames:
    """As what Redis and Postgres have."""

    def __init__(self, *answers: Sequence[Frame] | Exception) -> None:
        self._answers = [*answers]

    def _next(self) -> list[Frame]:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return list(answer)

    async def backlog(self, tenant_id: UUID, generation_id: UUID) -> list[Frame]:
        return self._next()

    async def since(self, cursor: Cursor) -> list[Frame]:
        return self._next()


async def told(streams: Frames, record: Frames) -> dict[str, Any]:
    step = await parsed(ENDED, streams, record, TENANT, GENERATION)  # type: ignore[arg-type]
    event = sse.encode(step).decode()
    assert event.count("\n") == 4, "a line break within would end the event"
    data = event.split("data: ")[1].strip()
    found: dict[str, Any] = json.loads(data, parse_float=str)
    return found


@pytest.mark.parametrize(
    ("streams", "record"),
    [
        (Frames(WHOLE), Frames([])),
        (Frames(StreamUnavailable("away")), Frames(WHOLE)),
        (Frames(WHOLE[:2]), Frames([], WHOLE)),
    ],
)
async def test_it_is_what_the_model_wrote_wherever_its_text_still_is(streams: Frames, record: Frames) -> None:
    detail = await told(streams, record)
    assert detail["parsed"] == {"n": 123456789012345678901234567890, "e": "1e400", "s": "\ud800"}
    assert detail.keys() == {"finish_reason", "parsed"}


async def test_it_is_null_where_the_text_is_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "_DEADLINE_S", 0.0)
    detail = await told(Frames([]), Frames([]))
    assert detail == {"finish_reason": "stop", "parsed": None}
