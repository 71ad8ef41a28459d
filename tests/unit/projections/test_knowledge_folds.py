"""Collections and documents from their facts, in whatever order they come."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from backplane.ports.identifiers import new_id
from event_schemas.codec import AnyEnvelope
from event_schemas.envelope import Envelope
from event_schemas.knowledge import (
    CollectionChanged,
    CollectionContent,
    CollectionCreated,
    CollectionDeleted,
    DocumentContent,
    DocumentDeleted,
    DocumentIngested,
    IngestDocument,
    IngestionFailed,
    IngestionProgressed,
)
from event_schemas.payload import Payload
from projections.table import Row
from tests.data_keys import data_key
from tests.unit.projections.story import T0, folded

TENANT, COLLECTION, DOCUMENT = new_id(), new_id(), new_id()
KEY = data_key(DOCUMENT)
NAME = KEY.seal(DocumentContent(name="Holidays"))


class Story:
    """Each fact is a second later than the one before."""

    def __init__(self) -> None:
        self.now = T0
        self.facts: list[AnyEnvelope] = []

    def say(self, payload: Payload) -> UUID:
        self.now += timedelta(seconds=1)
        id = new_id()
        fact = Envelope.first(payload, id=id, source="/test", tenant_id=TENANT, actor="test")
        self.facts.append(fact.model_copy(update={"time": self.now}))
        return id

    def created(self) -> None:
        content = KEY.seal(CollectionContent(description="ours"))
        self.say(
            CollectionCreated(
                collection_id=COLLECTION, name="handbook", embedder="minilm", language="english", content=content
            )
        )

    def ingestion(self, how: str, progress: int = 2) -> None:
        about: dict[str, Any] = {"document_id": DOCUMENT, "collection_id": COLLECTION}
        about["ingestion_id"] = self.say(IngestDocument(**about, bytes=10, content=NAME))
        self.say(IngestionProgressed(**about, stage="reading"))
        for done in range(progress):
            self.say(IngestionProgressed(**about, stage="embedding", embedded=done * 32, chunks=64))
        if how == "ready":
            self.say(DocumentIngested(**about, kind="pdf", characters=100, chunks=64))
        elif how == "failed":
            self.say(IngestionFailed(**about, reason="encrypted", detail="it wants a password"))


def document(facts: list[AnyEnvelope]) -> Row:
    (row,) = folded(facts)["documents"].values()
    return row


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[AnyEnvelope], list[AnyEnvelope]]:
    story = Story()
    story.created()
    for _ in range(draw(st.integers(1, 2))):
        story.ingestion(draw(st.sampled_from(("ready", "failed", "running"))), draw(st.integers(0, 3)))
    if draw(st.booleans()):
        story.say(DocumentDeleted(document_id=DOCUMENT, collection_id=COLLECTION))
    if draw(st.booleans()):
        story.say(CollectionDeleted(collection_id=COLLECTION))
    return story.facts, draw(st.permutations(story.facts))


@given(histories())
def test_any_order_of_the_facts_shows_the_same(histories: tuple[list[AnyEnvelope], list[AnyEnvelope]]) -> None:
    in_order, shuffled = (document(facts) for facts in histories)
    if in_order["deleted"]:
        assert shuffled["deleted"]
        assert shuffled["content"] is None
    else:
        # When it was last looked at depends on what was seen first; nothing else does.
        ignored = {"changed_at"}
        assert {k: v for k, v in shuffled.items() if k not in ignored} == {
            k: v for k, v in in_order.items() if k not in ignored
        }


def test_progress_shows() -> None:
    story = Story()
    story.created()
    story.ingestion("running", 3)
    seen = [(row["status"], row["embedded"]) for row in (document(story.facts[:n]) for n in range(2, 7))]
    assert seen == [("queued", 0), ("reading", 0), ("embedding", 0), ("embedding", 32), ("embedding", 64)]


def test_a_second_ingestion_begins_anew_and_what_is_left_of_the_first_changes_nothing() -> None:
    story = Story()
    story.created()
    story.ingestion("failed")
    failed = story.facts[-1]
    story.ingestion("running", 1)
    row = document([*story.facts, failed])
    assert (row["status"], row["reason"]) == ("embedding", None)


def test_a_collection_is_changed_in_parts_and_leaves_nothing_written() -> None:
    story = Story()
    story.created()
    story.say(CollectionChanged(collection_id=COLLECTION, name="our handbook"))
    (row,) = folded(story.facts)["collections"].values()
    assert row["name"] == "our handbook"
    assert row["content"] is not None
    story.say(CollectionDeleted(collection_id=COLLECTION))
    (row,) = folded(story.facts)["collections"].values()
    assert (row["name"], row["content"], row["deleted"]) == (None, None, True)
