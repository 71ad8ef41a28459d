from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from backplane.ports.identifiers import new_id
from backplane.security.content import DataKey
from benches.backlog import Backlog, words_of
from benches.record import differences
from event_schemas.chat import AnswerContent
from tests.data_keys import data_key
from tests.unit.benches.test_backlog import Publisher

ANOTHER = data_key(new_id())


class Stored:
    """A database whose answers are these, each by the key that it is to be opened by."""

    def __init__(self, answers: dict[UUID, str], keys: dict[UUID, DataKey]) -> None:
        self.answers = answers
        self.keys = keys

    @asynccontextmanager
    async def system(self) -> AsyncIterator[Any]:
        yield self

    async def all(self, sql: str) -> list[dict[str, object]]:
        return [
            {"id": each, "answer": self.keys.get(each, ANOTHER).seal(AnswerContent.of([text])).model_dump()}
            for each, text in self.answers.items()
        ]


async def test_every_answer_is_compared_with_what_was_published() -> None:
    backlog = Backlog()
    await backlog.publish(Publisher(), 4)
    answers = {each: "".join(words_of(each)) for each in backlog.generations}
    whole: Any = Stored(answers | {new_id(): "of another run"}, backlog.generations)
    assert await differences(whole, backlog) == []
    first, second, *_ = backlog.generations
    others = {each: text for each, text in answers.items() if each != first}
    changed: Any = Stored(others | {second: "swapped"}, backlog.generations)
    assert await differences(changed, backlog) == [
        f"generation {first}: not stored as completed",
        f"generation {second}: not stored as it was published",
    ]
