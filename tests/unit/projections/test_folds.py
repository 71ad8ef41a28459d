from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backplane.ports.identifiers import new_id
from backplane.security.content import ContentErased
from event_schemas.chat import AnswerContent, Piece
from event_schemas.codec import AnyEnvelope
from event_schemas.control_plane import ConversationRenamed, TitleContent
from event_schemas.conversations import ConversationEnded, ConversationResumed, ConversationSuspended
from event_schemas.embeddings import EmbeddingsMade
from event_schemas.envelope import Envelope
from event_schemas.generation import AttemptLost, GenerationCompleted, PromptContent, SubmitPrompt, TokensContent
from event_schemas.payload import PersonaRef, Usage
from event_schemas.personas import PersonaContent
from projections.catalog import PROJECTIONS, needed_for
from projections.table import Row
from tests.data_keys import data_key, plain, read
from tests.unit.projections.story import Ending, Story, folded

CLERK = PersonaRef(persona_id=new_id(), name="clerk", version=2)
POET = PersonaRef(persona_id=new_id(), name="poet", version=1)


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
    story = Story(is_plain=draw(st.booleans()))
    how: Ending = draw(st.sampled_from(("completed", "failed", "cancelled")))
    personas = st.sampled_from((None, CLERK, POET))
    facts = story.whole(
        how, attempts=draw(st.integers(1, 3)), keeps_content=draw(st.booleans()), persona=draw(personas)
    )
    if draw(st.booleans()):
        assert isinstance(facts[0].data, SubmitPrompt)
        parent = facts[0].data.generation_id
        facts += story.whole(how, parent=parent, keeps_content=draw(st.booleans()), persona=draw(personas))
    if draw(st.booleans()):
        facts.append(story.handed_on(as_prompt(facts[0])))
    if draw(st.booleans()):
        facts += story.beside("title")
        facts.append(story.titled("Of folds"))
    if draw(st.booleans()):
        facts.append(story.summarised(facts[0].data.generation_id))  # type: ignore[attr-defined]
    match draw(st.sampled_from(("by a prompt", "by itself", "as a fork"))):
        case "by itself":
            facts.append(story.begun(draw(st.sampled_from((None, "Begun")))))
        case "as a fork":
            facts.append(story.forked(UUID(int=0), draw(personas)))
    if draw(st.booleans()):
        facts += story.state(ConversationSuspended, ConversationResumed, ConversationEnded)
    if draw(st.booleans()):
        facts.append(story.renamed("Folds"))
    if draw(st.booleans()):
        facts.append(story.erased())
    if draw(st.booleans()):
        facts += story.batch(cancelled=draw(st.booleans()), deleted=draw(st.booleans()))
    if draw(st.booleans()):
        facts.append(story.deleted())
    kept = draw(st.lists(st.booleans(), min_size=len(facts), max_size=len(facts)))
    facts = [fact for fact, keep in zip(facts, kept, strict=True) if keep]
    return facts, draw(st.permutations(facts))


@given(histories())
def test_any_order_of_the_facts_gives_the_same_rows(histories: tuple[list[AnyEnvelope], list[AnyEnvelope]]) -> None:
    in_order, shuffled = histories
    assert folded(shuffled) == folded(in_order)


def test_what_is_made_beside_a_conversation_is_no_message_of_it() -> None:
    story = Story()
    prompt, *_ = whole = story.whole()
    told = folded([*whole, *story.beside("summary")])
    assert told["conversations"] == folded(whole)["conversations"]
    assert told["messages"] == folded(whole)["messages"]
    assert sorted(row["purpose"] for row in told["generations"].values()) == ["answer", "summary"]
    assert len(told["usage"]) == 2, "it costs"
    assert only(told, "conversations")["last_message_id"] == as_prompt(prompt).data.generation_id


def test_a_title_that_a_model_made_goes_before_the_first_words_and_after_a_persons() -> None:
    story = Story()
    prompt, titled, renamed = story.prompt(title="First words"), story.titled("Of folds"), story.renamed("Mine")
    for facts, title in ([prompt, titled], "Of folds"), ([prompt, renamed, titled], "Mine"):
        written = only(folded(facts), "conversations")["title"]
        assert read(written, story.key, TitleContent).title == title


def test_a_conversation_that_was_begun_is_its_owners_and_keeps_the_title_that_they_gave() -> None:
    story = Story()
    begun = story.begun("Mine")
    row = only(folded([begun]), "conversations")
    assert (row["user_id"], row["created_at"], row["last_message_id"]) == (story.user_id, begun.time, None)
    # An admin may be the first to say something there.
    prompt = as_prompt(story.prompt(title="First words"))
    theirs = prompt.model_copy(update={"data": prompt.data.model_copy(update={"user_id": new_id()})})
    went_on = only(folded([begun, theirs, story.titled("Of folds")]), "conversations")
    assert (went_on["user_id"], went_on["created_at"]) == (story.user_id, begun.time)
    assert went_on["last_message_id"] == prompt.data.generation_id
    assert read(went_on["title"], story.key, TitleContent).title == "Mine"
    without = only(folded([story.begun(), theirs]), "conversations")
    assert read(without["title"], story.key, TitleContent).title == "First words"


def test_a_fork_begins_at_a_message_of_another_conversation_and_goes_on_by_itself() -> None:
    story = Story()
    shared = new_id()
    fork = story.forked(shared, CLERK)
    forked = only(folded([fork]), "conversations")
    assert (forked["last_message_id"], forked["forked_at_message"]) == (shared, shared)
    assert (forked["persona_id"], forked["persona"], forked["persona_version"]) == (CLERK.persona_id, "clerk", 2)
    prompt = story.prompt(parent=shared, title=None)
    went_on = only(folded([fork, prompt]), "conversations")
    assert (went_on["last_message_id"], went_on["persona"]) == (prompt.data.generation_id, None)
    assert read(went_on["title"], story.key, TitleContent).title == "The other's title"


def test_what_has_ended_is_not_resumed_and_a_summary_goes_with_its_conversation() -> None:
    story = Story()
    facts = [story.prompt(), *story.state(ConversationSuspended)]
    assert only(folded(facts), "conversations")["state"] == "suspended"
    facts += story.state(ConversationEnded, ConversationResumed)
    assert only(folded(facts), "conversations")["state"] == "ended"
    facts.append(story.summarised(new_id()))
    assert only(folded(facts), "conversation_summaries")["conversation_id"] == story.conversation_id
    assert folded([*facts, story.deleted()])["conversation_summaries"] == {}


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
            "roles": (),
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
    described = {row["id"]: (row["role"], row["status"], row["ordinal"]) for row in rows.values()}
    assert described[system] == ("system", "complete", 0)
    assert described[hi] == ("user", "complete", 1)
    assert described[first.data.generation_id] == ("assistant", "queued", 2)


def test_what_was_written_stands_with_the_answer_as_it_was_published() -> None:
    story = Story()
    prompt = story.prompt(("system", "Be brief."), ("user", "Hi"))
    generation_id = prompt.data.generation_id
    pieces: list[Piece] = [
        {"reasoning": "hm"},
        "Once ",
        {"tool_call": 0, "id": "c2", "name": "look", "arguments": "{}"},
    ]
    facts = [prompt, story.started(generation_id), story.ended(generation_id, deltas=pieces)]
    asked = answer(facts[:-1], generation_id)
    assert (asked["answer"], asked["deltas"], asked["status"]) == (None, None, "running")
    ended = answer(facts, generation_id)
    assert (ended["deltas"], ended["status"]) == (3, "completed")
    assert ended["prompt"] == prompt.data.content.model_dump()
    said = read(ended["prompt"], story.key, PromptContent)
    assert [message.text for message in said.messages] == ["Be brief.", "Hi"]
    assert read(ended["answer"], story.key, AnswerContent).pieces == pieces
    for message_id in prompt.data.input_message_ids:
        assert [answer(facts, message_id)[name] for name in ("prompt", "answer", "deltas")] == [None] * 3


def test_where_nothing_was_written_there_is_no_answer() -> None:
    story = Story()
    prompt = story.prompt()
    ended = answer(
        [prompt, story.ended(prompt.data.generation_id, "cancelled", attempt=0, deltas=())], prompt.data.generation_id
    )
    assert (ended["answer"], ended["deltas"], ended["erased"]) == (None, 0, False)


def test_what_older_releases_wrote_is_stored_as_it_is() -> None:
    story = Story()
    prompt = story.prompt()
    said, ended = plain(PromptContent(messages=())), story.ended(prompt.data.generation_id)
    old = prompt.data.model_copy(update={"content": said, "title": plain(TitleContent(title="Old"))})
    assert isinstance(ended.data, GenerationCompleted)
    told = ended.data.model_copy(update={"content": plain(AnswerContent.of(["A fold."]))})
    rows = folded([story.envelope(old), story.envelope(told)])
    row = rows["messages"][story.tenant_id, prompt.data.generation_id]
    assert row["prompt"] == said.model_dump()
    assert row["answer"]["plain"]["text"] == "A fold."
    assert only(rows, "conversations")["title"] == {"plain": {"title": "Old"}}


def stored_content(rows: dict[str, dict[tuple[UUID | int, ...], Row]]) -> list[object]:
    """All that is stored of what was written."""
    messages, conversations = rows["messages"].values(), rows["conversations"].values()
    found = [row[name] for row in messages for name in ("prompt", "answer")] + [row["title"] for row in conversations]
    return [written for written in found if written is not None]


@given(st.permutations(range(7)), st.booleans())
def test_what_was_written_in_a_deleted_conversation_never_comes_back(order: list[int], is_plain: bool) -> None:
    story = Story(is_plain=is_plain)
    facts = [*story.whole(), story.renamed("Mine"), story.deleted()]
    assert len(stored_content(folded(facts[:-1]))) == 3
    rows = folded([facts[place] for place in order])
    assert stored_content(rows) == []
    assert all(message["erased"] for message in rows["messages"].values())
    assert answer(facts, as_prompt(facts[0]).data.generation_id)["deltas"] == 2
    assert only(rows, "conversations")["deleted"]
    assert rows["token_batches"] == {}


@given(st.permutations(range(7)))
def test_what_is_plain_in_an_erased_conversation_never_comes_back(order: list[int]) -> None:
    story = Story(is_plain=True)
    facts = [*story.whole(), story.renamed("Mine"), story.erased()]
    rows = folded([facts[place] for place in order])
    assert stored_content(rows) == []
    assert answer(facts, as_prompt(facts[0]).data.generation_id)["erased"]
    conversation = only(rows, "conversations")
    assert (conversation["deleted"], conversation["erased"]) == (False, True)


def test_an_erased_conversation_goes_on_under_another_key() -> None:
    story = Story()
    facts = [*story.whole(), story.erased()]
    gone, story.key = story.key, data_key(story.conversation_id)
    later = [*story.whole(parent=as_prompt(facts[0]).data.generation_id), story.renamed("Mine")]
    row = answer([*facts, *later], as_prompt(later[0]).data.generation_id)
    assert read(row["answer"], story.key, AnswerContent).text == "A fold."
    before = answer([*facts, *later], as_prompt(facts[0]).data.generation_id)
    with pytest.raises(ContentErased):
        read(before["answer"], story.key, AnswerContent)
    assert read(before["answer"], gone, AnswerContent).text == "A fold."
    title = only(folded([*facts, *later]), "conversations")["title"]
    assert read(title, story.key, TitleContent).title == "Mine"


@given(st.permutations(range(6)))
def test_of_a_prompt_that_is_not_kept_nothing_is_stored(order: list[int]) -> None:
    story = Story()
    kept = story.prompt()
    facts = [kept, *story.whole(parent=kept.data.generation_id, keeps_content=False)]
    rows = folded([facts[place] for place in order])
    unkept = as_prompt(facts[1]).data
    by_generation = {row["id"]: (row["erased"], row["prompt"] is None) for row in rows["messages"].values()}
    assert by_generation[kept.data.generation_id] == (False, False)
    assert by_generation[unkept.generation_id] == (True, True)
    assert by_generation[unkept.input_message_ids[0]] == (True, True)
    assert len(stored_content(rows)) == 2
    assert folded([story.prompt(keeps_content=False)])["conversations"].popitem()[1]["title"] is None


def test_while_it_runs_its_tokens_are_stored_where_no_content_is_kept() -> None:
    story = Story()
    facts = story.whole(keeps_content=False)
    assert len(folded(facts[:-1])["token_batches"]) == 2
    assert folded(facts)["token_batches"] == {}


def test_erasing_moves_no_conversation_in_the_list() -> None:
    story = Story()
    facts = story.whole()
    assert only(folded([*facts, story.erased()]), "conversations")["updated_at"] == facts[-1].time
    assert only(folded([story.erased()]), "conversations")["updated_at"] is None


def test_the_title_is_that_of_the_prompt_that_began_the_conversation() -> None:
    story = Story()
    first, later = story.prompt(title="First"), story.prompt(title="Later")
    for facts in ([first, later], [later, first]):
        row = only(folded(facts), "conversations")
        assert read(row["title"], story.key, TitleContent).title == "First"
        assert row["created_at"] == first.time
        assert row["last_message_id"] == later.data.generation_id
    assert only(folded([story.prompt(title=None)]), "conversations")["title"] is None


def test_a_name_that_was_given_stays() -> None:
    story = Story()
    mine = story.renamed("Mine")
    row = only(folded([story.renamed("First"), mine, story.prompt()]), "conversations")
    assert isinstance(mine.data, ConversationRenamed)
    assert (row["title"], row["renamed"]) == (mine.data.content.model_dump(), True)


def test_token_batches_live_until_the_generation_ends() -> None:
    story = Story()
    facts = story.whole()
    batches = folded(facts[:-1])["token_batches"].values()
    said = [(row["attempt"], row["first_seq"], row["count"]) for row in batches]
    assert said == [(1, 1, 1), (1, 2, 1)]
    texts = [read(row["content"], story.key, TokensContent).deltas for row in batches]
    assert texts == [("A ",), ("fold.",)]
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


def test_usage_says_who_paid_where_that_is_known() -> None:
    story = Story()
    ended = story.ended(story.prompt().data.generation_id)
    assert only(folded([ended]), "usage")["paid_by"] is None
    paid = ended.model_copy(update={"data": ended.data.model_copy(update={"paid_by": "tenant"})})
    assert only(folded([paid]), "usage")["paid_by"] == "tenant"


def test_a_request_for_embeddings_is_one_attempt_without_an_answer() -> None:
    story = Story()
    made = EmbeddingsMade(
        embedding_id=new_id(),
        key_id=new_id(),
        model="minilm",
        inputs=2,
        usage=Usage(input_tokens=7, output_tokens=0, source="provider"),
        backend="minilm",
        served_model="all-MiniLM-L6-v2",
    )
    row = only(folded([story.envelope(made)] * 2), "usage")
    assert (row["generation_id"], row["attempt"], row["inputs"]) == (made.embedding_id, 1, 2)
    assert (row["model"], row["input_tokens"], row["output_tokens"], row["source"]) == ("minilm", 7, 0, "provider")
    assert only(folded(story.whole()), "usage")["inputs"] is None


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
    assert [projection.name for projection in needed_for("token_batches")] == ["generations", "token_batches"]
    with pytest.raises(LookupError, match="no read model 'nothing'"):
        needed_for("nothing")


def test_a_conversation_says_what_its_newest_prompt_was_asked_as() -> None:
    story = Story()
    first, second = story.whole(persona=CLERK), story.whole(persona=POET)
    row = only(folded([*first, *second]), "conversations")
    assert (row["persona_id"], row["persona"], row["persona_version"]) == (POET.persona_id, "poet", 1)
    of_none = only(folded([*first, *second, *story.whole()]), "conversations")
    assert [of_none[name] for name in ("persona_id", "persona", "persona_version")] == [None] * 3


def test_what_was_asked_as_stands_with_each_generation_and_what_it_used() -> None:
    story = Story()
    rows = folded(story.whole(persona=CLERK))
    assert (only(rows, "generations")["persona"], only(rows, "generations")["persona_version"]) == ("clerk", 2)
    assert only(rows, "usage")["persona"] == "clerk"


def test_an_end_that_an_older_release_wrote_takes_no_persona_away() -> None:
    story = Story()
    facts = story.whole(persona=CLERK)
    assert isinstance(facts[-1].data, GenerationCompleted)
    older = [*facts[:-1], story.envelope(facts[-1].data.model_copy(update={"persona": None}))]
    for in_some_order in (older, list(reversed(older))):
        rows = folded(in_some_order)
        assert only(rows, "generations")["persona"] == only(rows, "conversations")["persona"] == "clerk"


def test_versions_stand_until_their_persona_is_removed() -> None:
    story = Story()
    older = CLERK.model_copy(update={"version": 1})
    versions = [story.saved(each) for each in (older, CLERK, POET)]
    rows = folded(versions)["persona_versions"].values()
    assert sorted((row["name"], row["version"]) for row in rows) == [("clerk", 1), ("clerk", 2), ("poet", 1)]
    newest = next(row for row in rows if row["version"] == 2)
    assert read(newest["content"], story.key, PersonaContent).system == "You are clerk."
    assert (newest["saved_by"], newest["saved_at"]) == (versions[1].actor, versions[1].time)
    left = folded([*versions, story.removed(CLERK)])["persona_versions"].values()
    assert [row["name"] for row in left] == ["poet"]


def test_a_batch_is_what_was_submitted_and_what_became_of_it() -> None:
    story = Story()
    facts = story.batch(cancelled=True)
    rows = folded(facts)
    batch, failures = only(rows, "batches"), only(rows, "batch_failures")
    assert (batch["total"], batch["deleted"]) == (2, False)
    assert batch["created_at"] < batch["cancelled_at"] < batch["ended_at"]
    assert batch["expired_at"] is None
    assert failures["failed"] == [{"line": 2, "code": "batch_cancelled"}]
    line = only(rows, "generations")
    assert (line["batch_id"], line["batch_line"], line["status"]) == (batch["id"], 1, "completed")
    assert only(rows, "conversations")["batch_id"] == batch["id"]
