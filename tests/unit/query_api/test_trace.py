from __future__ import annotations

import random
from datetime import timedelta
from typing import Any
from uuid import UUID

from event_schemas.codec import AnyEnvelope, encode
from query_api.trace import Trace
from tests.unit.projections.story import Story


def chain(story: Story, how: list[AnyEnvelope]) -> list[AnyEnvelope]:
    """As the services tell it: all of it was caused by its first, the command."""
    command = how[0]
    said = {"correlationid": command.id, "causationid": command.id}
    return [command, *(fact.model_copy(update=said) for fact in how[1:])]


def rows(facts: list[AnyEnvelope]) -> list[dict[str, Any]]:
    return [{"sequence": place, "envelope": encode(fact)} for place, fact in enumerate(facts, 1)]


def test_tokens_of_an_attempt_are_one_step_and_content_is_in_none() -> None:
    story = Story()
    facts = chain(story, story.whole(attempts=2))
    trace = Trace()
    for row in rows(facts):
        trace.take([row])
    steps = trace.steps()
    assert [(step.type, step.lines) for step in steps] == [
        ("prompt.submit.v3", 1),
        ("generation.started.v1", 1),
        ("tokens.emitted.v3", 2),
        ("attempt.lost.v2", 1),
        ("generation.restarted.v1", 1),
        ("tokens.emitted.v3", 2),
        ("generation.completed.v3", 1),
    ]
    assert [step.depth for step in steps] == [0, *([1] * 6)]
    assert all("content" not in step.facts for step in steps)
    assert [step.facts["attempt"] for step in steps[1:]] == [1, 1, 1, 2, 2, 2]
    tokens = steps[2]
    assert tokens.until == tokens.time + timedelta(seconds=1)


def test_no_effect_comes_before_its_cause_whatever_the_order_and_the_clocks() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    story = Story()
    facts = [story.renamed(str(number)) for number in range(12)]
    linked = facts[:1]
    for fact in facts[1:]:
        cause = dice.choice(linked)
        # The clock of who caused it may be ahead.
        when = fact.time - timedelta(seconds=dice.randrange(20))
        linked.append(fact.model_copy(update={"causationid": cause.id, "time": when}))
    shuffled = dice.sample(linked, len(linked))
    trace = Trace()
    trace.take(rows(shuffled))
    steps = trace.steps()
    assert len(steps) == len(facts)
    depths: dict[UUID, int] = {}
    for step in steps:
        if step.id != facts[0].id:
            assert step.causation_id in depths
            assert step.depth == depths[step.causation_id] + 1
        depths[step.id] = step.depth


def test_a_ring_of_causes_ends() -> None:
    story = Story()
    first, second = story.renamed("A"), story.renamed("B")
    ring = [
        first.model_copy(update={"causationid": second.id}),
        second.model_copy(update={"causationid": first.id}),
    ]
    trace = Trace()
    trace.take(rows(ring))
    assert {step.id for step in trace.steps()} == {first.id, second.id}
