"""URLs and marks at the beginning of a prompt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from command_api.source_marks import BadMark, Marked, may_begin_with_sources, parse
from event_schemas.sources import SiteWish, SourceWish, TextWish, UrlWish

URL = UrlWish(url="https://example.com/a?b=c")


@pytest.mark.parametrize(
    ("text", "wishes", "question"),
    [
        ("https://example.com/a?b=c What is it?", (URL,), "What is it?"),
        ("  https://example.com/a?b=c,\n\nWhat is it?", (URL,), "What is it?"),
        ("https://example.com/a?b=c http://b.example. Both?", (URL, UrlWish(url="http://b.example")), "Both?"),
        ("https://example.com/a?b=c", (URL,), "https://example.com/a?b=c"),
        ("|CONTEXT| It is red.\n|/CONTEXT| Which colour?", (TextWish(text="It is red."),), "Which colour?"),
        ("|RAG|example.com|/RAG|Any news?", (SiteWish(site="example.com"),), "Any news?"),
        (
            "|RAG|a|/RAG| |CONTEXT|b|/CONTEXT| https://example.com/a?b=c |RAG|d|/RAG| e |RAG|f|/RAG|",
            (SiteWish(site="a"), TextWish(text="b"), URL, SiteWish(site="d")),
            "e |RAG|f|/RAG|",
        ),
        ("|CONTENT|a|/CONTENT|b", (TextWish(text="a"),), "b"),
        ("|CONTEXT|a |RAG|b|/RAG| c|/CONTEXT|d", (TextWish(text="a |RAG|b|/RAG| c"),), "d"),
        ("What is https://example.com ?", (), "What is https://example.com ?"),
        (" |context|a|/context| b", (), " |context|a|/context| b"),
        ("httpsomething", (), "httpsomething"),
    ],
)
def test_what_stands_before_the_question_is_taken_off_it(
    text: str, wishes: tuple[SourceWish, ...], question: str
) -> None:
    assert parse(text, urls=True) == Marked(wishes, question)
    assert may_begin_with_sources(text) or not wishes


def test_where_nothing_may_be_fetched_a_url_stays_text() -> None:
    assert parse("https://example.com x", urls=False) == Marked((), "https://example.com x")
    assert parse("|RAG|a|/RAG| https://b.example x", urls=False) == Marked((SiteWish(site="a"),), "https://b.example x")


@pytest.mark.parametrize(
    "text", ["|CONTEXT|a", "|RAG|a|/CONTEXT|b", "|RAG| |/RAG|b", "|CONTEXT||/CONTEXT|b", "|RAG|a|/RAG|", "|RAG|"]
)
def test_a_mark_that_is_not_whole_is_said_to_be_so(text: str) -> None:
    assert may_begin_with_sources(text)
    with pytest.raises(BadMark):
        parse(text, urls=True)


_WORDS = st.text(
    st.characters(blacklist_characters="|", blacklist_categories=("Cs", "Zs", "Cc", "Zl", "Zp")), min_size=1
)
_WISHES = st.one_of(
    _WORDS.map(lambda word: UrlWish(url=f"https://{word}/x")),
    _WORDS.map(lambda word: TextWish(text=word)),
    _WORDS.map(lambda word: SiteWish(site=word)),
)


def written(wish: SourceWish) -> str:
    if isinstance(wish, UrlWish):
        return f"{wish.url} "
    if isinstance(wish, TextWish):
        return f"|CONTEXT|{wish.text}|/CONTEXT|"
    assert isinstance(wish, SiteWish)
    return f"|RAG|{wish.site}|/RAG|"


@given(st.lists(_WISHES, max_size=6), _WORDS.map(lambda word: f"q{word}"), st.sampled_from(("", " ", "\n\t")))
def test_what_was_written_is_what_is_read(wishes: list[SourceWish], question: str, gap: str) -> None:
    text = gap + gap.join(map(written, wishes)) + gap + question
    found = parse(text, urls=True)
    assert found == Marked(tuple(wishes), question if wishes else text)
    assert may_begin_with_sources(text) or not wishes


@given(st.text())
def test_any_text_is_read_and_nothing_of_the_question_is_lost(text: str) -> None:
    try:
        found = parse(text, urls=True)
    except BadMark:
        assert may_begin_with_sources(text)
        return
    assert (found.question == text) if not found.wishes else found.question
    assert may_begin_with_sources(text) or not found.wishes
