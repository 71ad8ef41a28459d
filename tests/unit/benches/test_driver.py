from __future__ import annotations

from typing import Any

import pytest

from benches.answer import Answer, Broken, Source
from benches.driver import Said, drive, serve
from benches.load import Load, Order

LOAD = Load(clients=3, tokens=5, delay_s=0.001, seconds=0.2)


async def test_the_backend_alone(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = await serve(Order(load=LOAD, target=None))
    assert [Said.model_validate_json(line).what for line in capsys.readouterr().out.splitlines()] == [
        "opened",
        "closed",
        "ended",
    ]
    assert outcome.completeness.wrong == []
    assert outcome.completeness.answers > outcome.figures.requests > 0
    assert outcome.figures.tokens > 0
    assert outcome.figures.first_token is not None


async def test_a_client_that_is_broken_off_stops_and_is_told_of() -> None:
    class Breaking:
        closed = 0

        async def answer(self, into: Answer) -> None:
            raise Broken("POST /v1/prompts was answered 503")

        async def close(self) -> None:
            Breaking.closed += 1

    async def connect() -> Source:
        return Breaking()

    answers, _ = await drive(LOAD, connect, lambda edge: None)
    assert [answer.outcome for answer in answers] == ["POST /v1/prompts was answered 503"] * LOAD.clients
    assert Breaking.closed == LOAD.clients


async def test_no_connection_is_an_answer_that_did_not_come() -> None:
    async def connect() -> Any:
        raise Broken("no connection to 127.0.0.1:1")

    answers, _ = await drive(LOAD, connect, lambda edge: None)
    assert [answer.outcome for answer in answers] == ["no connection to 127.0.0.1:1"] * LOAD.clients
