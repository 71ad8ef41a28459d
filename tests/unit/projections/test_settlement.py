"""What lines of the record count in."""

from __future__ import annotations

from decimal import Decimal

from backplane.ports.budget import Opened, Scope, Spent
from backplane.ports.identifiers import new_id
from event_schemas.embeddings import EmbeddingsMade
from event_schemas.payload import PersonaRef, Usage
from projections.settlement import change
from tests.unit.projections.story import Story

CLERK = PersonaRef(persona_id=new_id(), name="clerk", version=2)


def test_a_prompt_and_its_end_count_in_what_it_was_asked_as() -> None:
    story = Story()
    facts = story.whole(persona=CLERK)
    opened, spent = change(facts[0], ended=False), change(facts[-1], ended=False)
    assert isinstance(opened, Opened)
    assert isinstance(spent, Spent)
    for counted in (opened, spent):
        assert Scope("persona", story.tenant_id, "clerk") in counted.scopes


def test_a_prompt_without_a_persona_counts_in_none() -> None:
    for fact in (Story().whole()[0], Story().whole()[-1]):
        counted = change(fact, ended=False)
        assert counted is not None
        assert [one for one in counted.scopes if one.dimension == "persona"] == []


def test_embeddings_count_in_the_limits_of_who_asked_and_end_what_was_reserved_for_them() -> None:
    story = Story()
    made = EmbeddingsMade(
        embedding_id=new_id(),
        user_id=new_id(),
        key_id=new_id(),
        model="minilm",
        inputs=2,
        usage=Usage(input_tokens=7, output_tokens=0, source="provider", cost_usd=Decimal("0.5")),
        backend="minilm",
        served_model="all-MiniLM-L6-v2",
    )
    spent = change(story.envelope(made), ended=False)
    assert isinstance(spent, Spent)
    assert (spent.generation_id, spent.tokens, spent.nano_usd, spent.ends) == (made.embedding_id, 7, 500_000_000, True)
    assert {(one.dimension, one.subject_id) for one in spent.scopes} == {
        ("platform", ""),
        ("tenant", ""),
        ("user", str(made.user_id)),
        ("key", str(made.key_id)),
        ("model", "minilm"),
    }
