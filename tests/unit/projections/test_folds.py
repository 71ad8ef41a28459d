from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_schemas.chat import ChatMessage, ImagePart, Piece, TextPart, ToolCall
from event_schemas.codec import AnyEnvelope
from event_schemas.envelope import Envelope
from event_schemas.generation import AttemptLost, SubmitPrompt
from event_schemas.payload import Usage
from projections.catalog import PROJECTIONS, needed_for
from projections.table import Row
from tests.unit.projections.story import Ending, Story, folded


def only(rows: dict[str, dict[tuple[UUID | int, ...], Row]], model: str) -> Row:
    (row,) = rows[model].values()
    return row


def answer(facts: list[AnyEnvelope], generation_id: UUID) -> Row:
    (row,) = (row for row in folded(facts)["messages"].values() if row["id"] == generation_id)
    return row


def as_prompt(fact: AnyEnvelope) -> Envelope[SubmitPrompt]:
    assert isinstance(fact.data, SubmitPrompt)
    return Envelope[SubmitPrompt].model_construct(**dict(fact))


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[AnyEnvelope], list[AnyEnvelope]]:
    """(facts as they came to be, the same in any order, some of them twice with duplicates dropped)."""
    story = Story()
    how: Ending = draw(st.sampled_from(("completed", "failed", "cancelled")))
    facts = story.whole(how, attempts=draw(st.integers(1, 3)))
    if draw(st.booleans()):
        assert isinstance(facts[0].data, SubmitPrompt)
        facts += story.whole(how, parent=facts[0].data.generation_id)
    if draw(st.booleans()):
        facts.append(story.handed_on(as_prompt(facts[0])))
    if draw(st.booleans()):
        facts.append(story.renamed("Folds"))
    if draw(st.booleans()):
        facts.append(story.deleted())
    kept = draw(st.lists(st.booleans(), min_size=len(facts), max_size=len(facts)))
    facts = [fact for fact, keep in zip(facts, kept, strict=True) if keep]
    return facts, draw(st.permutations(facts))


@given(histories())
def test_any_order_of_the_facts_gives_the_same_rows(histories: tuple[list[AnyEnvelope], list[AnyEnvelope]]) -> None:
    in_order, shuffled = histories
    assert folded(shuffled) == folded(in_order)


def test_a_prompt_that_was_handed_on_is_the_same_prompt() -> None:
    story = Story()
    prompt = story.prompt()
    assert folded([prompt, story.handed_on(prompt)]) == folded([prompt])


@given(histories())
def test_statuses_and_attempts_only_grow(histories: tuple[list[AnyEnvelope], list[AnyEnvelope]]) -> None:
    _, shuffled = histories
    rank = {"queued": 0, "running": 1, "completed": 2, "failed": 2, "cancelled": 2}
    seen: dict[UUID, tuple[int, int]] = {}
    for length in range(len(shuffled) + 1):
        for row in folded(shuffled[:length])["generations"].values():
            now = rank[row["status"]], row["attempt"]
            before = seen.get(row["id"], (0, 0))
            assert now[0] >= before[0]
            assert now[1] >= before[1]
            seen[row["id"]] = now


def test_a_generation_is_queued_runs_and_ends() -> None:
    story = Story()
    facts = story.whole()
    assert only(folded(facts[:1]), "generations")["status"] == "queued"
    running = only(folded(facts[:2]), "generations")
    assert (running["status"], running["attempt"], running["model"]) == ("running", 1, "model-1")
    ended = only(folded(facts), "generations")
    assert {
        name: ended[name] for name in ("status", "finish_reason", "input_tokens", "output_tokens", "usage_source")
    } == {
        "status": "completed",
        "finish_reason": "stop",
        "input_tokens": 7,
        "output_tokens": 2,
        "usage_source": "provider",
    }
    assert (ended["first_token_ms"], ended["duration_ms"]) == (12, 340)
    assert (ended["created_at"], ended["started_at"], ended["ended_at"]) == (
        facts[0].time,
        facts[1].time,
        facts[-1].time,
    )
    assert ended["parameters"]["temperature"] == 0.5
    assert ended["metadata"] == {"ticket": "42"}
    assert (ended["pool"], ended["user_id"], ended["key_id"]) == ("local", story.user_id, story.key_id)


def test_a_failure_says_why() -> None:
    story = Story()
    row = only(folded(story.whole("failed")), "generations")
    assert (row["status"], row["reason"]) == ("failed", "attempts_exhausted")
    assert row["detail"] == "the backend was lost three times"


def test_what_a_fenced_worker_still_says_changes_nothing() -> None:
    story = Story()
    facts = story.whole(attempts=2)
    assert isinstance(facts[0].data, SubmitPrompt)
    generation_id = facts[0].data.generation_id
    late = [story.started(generation_id), story.tokens(generation_id, 3, "!"), story.ended(generation_id, "failed")]
    before, after = folded(facts), folded([*facts, *late])
    for model in ("generations", "messages", "token_batches"):
        assert after[model] == before[model]


def test_messages_form_a_tree() -> None:
    story = Story()
    first = story.prompt(("system", "Be brief."), ("user", "Hi"))
    second = story.prompt(("user", "And?"), parent=first.data.generation_id)
    again = story.prompt(parent=None)
    regenerated = second.data.model_copy(
        update={
            "generation_id": again.data.generation_id,
            "parent_message_id": second.data.input_message_ids[0],
            "input_message_ids": (),
            "content": second.data.content.model_copy(update={"messages": ()}),
        }
    )
    rows = folded([first, second, story.envelope(regenerated)])["messages"]
    parents = {row["id"]: row["parent_message_id"] for row in rows.values()}
    system, hi = first.data.input_message_ids
    (and_,) = second.data.input_message_ids
    assert parents == {
        system: None,
        hi: system,
        first.data.generation_id: hi,
        and_: first.data.generation_id,
        second.data.generation_id: and_,
        regenerated.generation_id: and_,
    }
    described = {row["id"]: (row["role"], row["content"], row["status"], row["ordinal"]) for row in rows.values()}
    assert described[system] == ("system", "Be brief.", "complete", 0)
    assert described[hi] == ("user", "Hi", "complete", 1)
    assert described[first.data.generation_id] == ("assistant", None, "queued", 2)


def test_an_answer_has_its_text_and_its_delta_boundaries_once_it_ended() -> None:
    story = Story()
    facts = story.whole()
    assert isinstance(facts[0].data, SubmitPrompt)
    generation_id = facts[0].data.generation_id
    assert answer(facts[:-1], generation_id)["content"] is None
    ended = answer(facts, generation_id)
    assert (ended["content"], ended["delta_lengths"], ended["status"]) == ("A fold.", [2, 5], "completed")


def test_messages_keep_their_parts_and_what_was_asked_of_tools() -> None:
    story = Story()
    look = ChatMessage(role="user", content=(TextPart(text="Look: "), ImagePart(url="https://example.com/a.png")))
    asked = ChatMessage(role="assistant", content="", tool_calls=(ToolCall(id="c1", name="look", arguments="{}"),))
    seen = ChatMessage(role="tool", content="A cat", tool_call_id="c1")
    prompt = story.prompt(look, asked, seen)
    pieces: list[Piece] = [
        {"reasoning": "hm"},
        "Once ",
        {"tool_call": 0, "id": "c2", "name": "look", "arguments": "{"},
        {"tool_call": 0, "arguments": "}"},
        {"text": "more", "logprobs": [{"token": "more", "logprob": -0.5, "top_logprobs": []}]},
    ]
    facts = [prompt, story.started(prompt.data.generation_id), story.ended(prompt.data.generation_id, deltas=pieces)]
    rows = folded(facts)["messages"]
    first, second, third = (rows[story.tenant_id, message_id] for message_id in prompt.data.input_message_ids)
    assert (first["content"], first["parts"]) == (
        "Look: ",
        [
            {"type": "text", "text": "Look: "},
            {"type": "image", "url": "https://example.com/a.png", "detail": None},
        ],
    )
    assert second["tool_calls"] == [{"id": "c1", "name": "look", "arguments": "{}"}]
    assert (third["role"], third["content"], third["tool_call_id"]) == ("tool", "A cat", "c1")
    answered = rows[story.tenant_id, prompt.data.generation_id]
    assert (answered["content"], answered["reasoning"]) == ("Once more", "hm")
    assert answered["tool_calls"] == [{"id": "c2", "name": "look", "arguments": "{}"}]
    assert answered["delta_lengths"] == [(-1, 2), 5, (0, 1), (0, 1), 4]
    assert answered["logprobs"] == [[], [], [], [], [{"token": "more", "logprob": -0.5, "top_logprobs": []}]]
    for erased in folded([*facts, story.deleted()])["messages"].values():
        written = ("content", "parts", "tool_calls", "tool_call_id", "reasoning", "delta_lengths", "logprobs")
        assert [erased[name] for name in written] == [None] * 7


@given(st.permutations(range(6)))
def test_a_deleted_conversation_never_gets_its_content_back(order: list[int]) -> None:
    story = Story()
    facts = [*story.whole(), story.deleted()]
    rows = folded([facts[place] for place in order])
    for message in rows["messages"].values():
        assert message["erased"]
        assert message["content"] is None
        assert message["delta_lengths"] is None
    assert only(rows, "conversations")["deleted"]
    assert only(rows, "conversations")["title"] is None
    assert only(rows, "generations")["metadata"] is None
    assert rows["token_batches"] == {}


@pytest.mark.parametrize(
    ("said", "title"),
    [
        ([("system", "Be brief."), ("user", "  What \n is\ta fold? ")], "What is a fold?"),
        ([("user", "x" * 59 + " yz")], "x" * 59),
        ([("user", " \n ")], None),
        ([("system", "Be brief.")], None),
    ],
)
def test_a_title_is_the_beginning_of_the_first_user_message(said: list[tuple[str, str]], title: str | None) -> None:
    story = Story()
    first, later = story.prompt(*said), story.prompt(("user", "Later"))  # type: ignore[arg-type]
    for facts in ([first, later], [later, first]):
        row = only(folded(facts), "conversations")
        assert row["title"] == title
        assert row["created_at"] == first.time
        assert row["last_message_id"] == later.data.generation_id


def test_a_name_that_was_given_stays() -> None:
    story = Story()
    row = only(folded([story.renamed("First"), story.renamed("Mine"), story.prompt()]), "conversations")
    assert (row["title"], row["renamed"]) == ("Mine", True)


def test_token_batches_live_until_the_generation_ends() -> None:
    story = Story()
    facts = story.whole()
    batches = folded(facts[:-1])["token_batches"].values()
    assert [(row["attempt"], row["first_seq"], row["deltas"]) for row in batches] == [(1, 1, ["A "]), (1, 2, ["fold."])]
    assert folded(facts)["token_batches"] == {}


def test_each_attempt_has_its_usage() -> None:
    story = Story()
    rows = folded(story.whole(attempts=2))["usage"].values()
    assert [(row["attempt"], row["output_tokens"], row["source"]) for row in rows] == [
        (1, 3, "estimated"),
        (2, 2, "provider"),
    ]


def test_a_generation_that_ended_before_any_attempt_used_nothing() -> None:
    story = Story()
    prompt = story.prompt()
    assert folded([prompt, story.ended(prompt.data.generation_id, "cancelled", attempt=0)])["usage"] == {}


@pytest.mark.parametrize("turned", [False, True])
def test_a_providers_figure_beats_an_estimate(turned: bool) -> None:
    story = Story()
    generation_id = story.prompt().data.generation_id
    lost = story.lost(generation_id)
    assert isinstance(lost.data, AttemptLost)
    guess = Usage(input_tokens=900, output_tokens=900, source="estimated")
    facts = [story.ended(generation_id), story.envelope(lost.data.model_copy(update={"usage": guess}))]
    row = only(folded(facts[::-1] if turned else facts), "usage")
    assert (row["input_tokens"], row["output_tokens"], row["source"]) == (7, 2, "provider")


def test_the_same_ids_of_two_tenants_are_two_rows() -> None:
    mine = Story()
    facts = mine.whole()
    theirs = [fact.model_copy(update={"tenantid": Story().tenant_id}) for fact in facts[:1]]
    rows = folded([*facts, *theirs, *theirs[:0], Story(tenant_id=theirs[0].tenantid).deleted()])
    assert sorted(row["status"] for row in rows["generations"].values()) == ["completed", "queued"]
    assert sum(row["tenant_id"] == mine.tenant_id for row in rows["messages"].values()) == 2


def test_a_projection_stands_after_those_that_it_looks_at() -> None:
    names = [projection.name for projection in PROJECTIONS]
    for projection in PROJECTIONS:
        assert set(projection.looks_at) <= set(names[: names.index(projection.name)])
        assert projection.table.key[0] == "tenant_id"
    assert [projection.name for projection in needed_for("token_batches")] == [
        "conversations",
        "generations",
        "token_batches",
    ]
    with pytest.raises(LookupError, match="no read model 'nothing'"):
        needed_for("nothing")
