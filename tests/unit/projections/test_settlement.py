"""What lines of the record count in."""

from __future__ import annotations

from backplane.ports.budget import Opened, Scope, Spent
from backplane.ports.identifiers import new_id
from event_schemas.payload import PersonaRef
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
