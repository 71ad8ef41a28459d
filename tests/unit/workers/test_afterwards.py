from __future__ import annotations

import pytest

from backplane.ports.identifiers import new_id
from backplane.security.content import opened
from event_schemas.background import derived_id
from event_schemas.chat import ChatMessage
from event_schemas.codec import AnyEnvelope
from event_schemas.control_plane import TitleContent
from event_schemas.conversations import ConversationSummarised, ConversationTitled, SummaryContent
from event_schemas.generation import PromptContent, Purpose, SubmitPrompt, WindowPolicy
from event_schemas.payload import Plain, Usage
from tests.data_keys import data_key
from tests.integration.prompts import FREE, envelope, scripted
from workers.afterwards import Completed, afterwards, title_of
from workers.facts import Facts

TENANT = new_id()
KEY = data_key(new_id())
QUESTION = "Why is the sky blue?"


def led_to(
    prompt: SubmitPrompt,
    answer: str = "It scatters light.",
    used: int = 10,
    window: int | None = 100,
    *,
    slid: bool = False,
    forked: bool = False,
) -> tuple[AnyEnvelope, ...]:
    content = PromptContent(messages=(ChatMessage(role="user", content=QUESTION),))
    usage = Usage(input_tokens=used, output_tokens=0, source="provider")
    facts = Facts(envelope(prompt, TENANT), prompt, "w", FREE)
    return afterwards(facts, Completed(prompt, content, answer, usage, window, slid, forked), KEY, titles=True)


def prompt_of(
    purpose: Purpose = "answer",
    *,
    follows: bool = False,
    window: WindowPolicy = "summarise",
    keeps_content: bool = True,
) -> SubmitPrompt:
    title = None if follows else Plain(plain={"title": "Why is"})
    changes = {"purpose": purpose, "window": window, "title": title, "keeps_content": keeps_content}
    return scripted(parent=new_id() if follows else None, text=QUESTION).model_copy(update=changes)


def test_the_first_exchange_leads_to_a_prompt_for_a_title() -> None:
    first = prompt_of()
    (led,) = led_to(first)
    wanted = led.data
    assert isinstance(wanted, SubmitPrompt)
    assert (wanted.purpose, wanted.conversation_id, wanted.parent_message_id) == ("title", first.conversation_id, None)
    assert (wanted.pool, wanted.model, wanted.share.priority) == (first.pool, first.model, "low")
    assert wanted.reserved is not None
    assert wanted.reserved.tokens > 24
    assert wanted.parameters.max_tokens == 24
    (asked,) = opened(wanted.content, KEY, PromptContent).messages
    assert QUESTION in asked.text
    assert "It scatters light." in asked.text
    assert len(wanted.roles) == len(wanted.input_message_ids) == 1


def test_the_same_end_leads_to_the_same_generation_however_often() -> None:
    first = prompt_of()
    found = {led_to(first)[0].data.generation_id for _ in range(2)}  # type: ignore[attr-defined]
    assert found == {derived_id(first.generation_id, "title")}
    assert led_to(prompt_of())[0].data.generation_id not in found  # type: ignore[attr-defined]
    assert first.generation_id.int >> 80 == found.pop().int >> 80, "of the same millisecond"


@pytest.mark.parametrize(
    ("prompt", "used", "window"),
    [
        (prompt_of(follows=True), 74, 100),
        (prompt_of(follows=True), 1000, None),
        (prompt_of(follows=True, window="slide"), 99, 100),
        (prompt_of(keeps_content=False), 99, 100),
    ],
)
def test_nothing_comes_of_it_where_there_is_room_or_nothing_is_kept(
    prompt: SubmitPrompt, used: int, window: int | None
) -> None:
    assert led_to(prompt, used=used, window=window) == ()


def test_a_conversation_near_its_window_leads_to_a_prompt_for_a_summary_of_what_was_before() -> None:
    following = prompt_of(follows=True)
    (led,) = led_to(following, used=75)
    wanted = led.data
    assert isinstance(wanted, SubmitPrompt)
    assert (wanted.purpose, wanted.parent_message_id) == ("summary", following.parent_message_id)
    assert wanted.window == "summarise", "a summary goes on from the one before"
    assert wanted.parameters.max_tokens == 25, "a quarter of the window"


def test_what_slid_out_is_summarised_and_what_is_another_conversations_never_is() -> None:
    following = prompt_of(follows=True)
    assert len(led_to(following, slid=True)) == 1
    assert led_to(following, used=99, slid=True, forked=True) == ()


def test_what_they_made_is_told_and_sealed() -> None:
    (titled,) = led_to(prompt_of("title"), '\n**"The blue sky"**\nIt is short.')
    assert isinstance(titled.data, ConversationTitled)
    assert opened(titled.data.content, KEY, TitleContent).title == "The blue sky"
    summary = prompt_of("summary", follows=True)
    (summarised,) = led_to(summary, " They spoke of the sky. ", used=99)
    assert isinstance(summarised.data, ConversationSummarised)
    assert summarised.data.up_to_message_id == summary.parent_message_id
    assert opened(summarised.data.content, KEY, SummaryContent).summary == "They spoke of the sky."
    for purpose in ("title", "summary"):
        assert led_to(prompt_of(purpose, follows=True), " \n") == ()


@pytest.mark.parametrize(
    ("said", "title"),
    [
        ("Blue sky", "Blue sky"),
        ("Title: Blue sky.", "Blue sky"),
        ("# Der blaue   Himmel", "Der blaue Himmel"),
        ("„Himmel“", "Himmel"),
        ("***\n\nSky", "Sky"),
        ("", ""),
        ("w" * 100, "w" * 60),
    ],
)
def test_a_title_is_one_short_line(said: str, title: str) -> None:
    assert title_of(said) == title
