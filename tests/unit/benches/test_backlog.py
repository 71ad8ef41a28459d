from __future__ import annotations

from collections import defaultdict
from uuid import UUID

import pytest

from backplane.ports.bus import Position
from benches.backlog import EVENTS_A_GENERATION, TOKENS, Backlog, words_of
from event_schemas.chat import AnswerContent
from event_schemas.codec import AnyEnvelope, decode
from event_schemas.generation import SubmitPrompt
from tests.data_keys import read
from tests.unit.projections.story import folded


class Publisher:
    """Keeps what is published, by topic and key."""

    def __init__(self) -> None:
        self.published: dict[tuple[str, str | None], list[AnyEnvelope]] = defaultdict(list)

    async def publish(self, topic: str, payload: bytes, *, key: str | None = None, **_: object) -> Position:
        published = self.published[topic, key]
        published.append(decode(payload))
        return Position(0, len(published))

    async def backlog(self, topic: str, subscription: str) -> list[int]:
        raise NotImplementedError


@pytest.mark.parametrize("generations", [1, 31, 200])
async def test_what_waits_is_what_services_write(generations: int) -> None:
    backlog, bus = Backlog(), Publisher()
    await backlog.publish(bus, generations)
    published = [envelope for each in bus.published.values() for envelope in each]
    assert len(published) == generations * EVENTS_A_GENERATION
    assert len({envelope.id for envelope in published}) == len(published)
    assert len(set(backlog.generations)) == generations
    for (topic, key), envelopes in bus.published.items():
        assert {str(envelope.tenantid) for envelope in envelopes} == {key}
        assert {isinstance(envelope.data, SubmitPrompt) for envelope in envelopes} == {topic.startswith("commands-")}


async def test_it_folds_into_the_answers_that_are_looked_for() -> None:
    backlog, bus = Backlog(), Publisher()
    await backlog.publish(bus, 150)
    rows = folded(envelope for each in bus.published.values() for envelope in each)
    answers: dict[UUID, str] = {
        row["id"]: read(row["answer"], backlog.generations[row["id"]], AnswerContent).text
        for row in rows["messages"].values()
        if row["role"] == "assistant"
    }
    assert answers == {each: "".join(words_of(each)) for each in backlog.generations}
    assert all(len(words_of(each)) == TOKENS for each in backlog.generations)
    assert len(rows["conversations"]) < len(backlog.generations)
    assert len({row["tenant_id"] for row in rows["conversations"].values()}) > 1
