from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from workers.knowledge.chunking import Chunk, chunks


def words(texts: Sequence[str]) -> list[int]:
    """A token for each six characters of each word, and what is left of it."""
    return [sum((len(word) + 5) // 6 for word in text.split()) for text in texts]


def of(text: str, *, most: int = 12, overlap: int = 4) -> list[str]:
    return [text[chunk.begin : chunk.end] for chunk in chunks(text, words, most=most, overlap=overlap)]


BLANKS = st.sampled_from(
    [" ", " ", " ", "\n", "\n\n", ". ", "! ", "\n# A head\n", "\n## Below it ##\n\n", "。", "\t", "\u00a0"]
)
TEXTS = st.lists(st.tuples(st.text(min_size=0, max_size=30), BLANKS), max_size=60).map(
    lambda parts: "".join(word + blank for word, blank in parts)
)


@given(TEXTS, st.integers(4, 40), st.integers(0, 20))
def test_nothing_is_lost(text: str, most: int, overlap: int) -> None:
    found = chunks(text, words, most=most, overlap=min(overlap, most // 2))
    covered = [False] * len(text)
    for chunk in found:
        covered[chunk.begin : chunk.end] = [True] * (chunk.end - chunk.begin)
    assert "".join(char for char, is_in in zip(text, covered, strict=True) if not is_in).strip() == ""
    assert all(text[chunk.begin : chunk.end].strip() for chunk in found)


@given(TEXTS, st.integers(4, 40), st.integers(0, 20))
def test_bounds_hold(text: str, most: int, overlap: int) -> None:
    overlap = min(overlap, most // 2)
    found = chunks(text, words, most=most, overlap=overlap)
    assert all(words([text[chunk.begin : chunk.end]])[0] <= most for chunk in found)
    for one, after in pairwise(found):
        assert one.begin < after.begin
        assert one.end < after.end
        assert words([text[after.begin : max(one.end, after.begin)]])[0] <= overlap


@given(TEXTS)
def test_the_same_text_has_the_same_chunks(text: str) -> None:
    assert chunks(text, words, most=10, overlap=3) == chunks(text, words, most=10, overlap=3)


def test_a_text_that_fits_is_one_chunk() -> None:
    assert of("  One sentence. And one more.\n") == ["One sentence. And one more."]
    assert of(" \n\n ") == []


def test_it_is_cut_between_sentences_and_repeats_the_last_one() -> None:
    text = "Ice is cold. Ports shut. Nobody sails now. Bread is warm. We eat it."
    assert of(text, most=8, overlap=3) == [
        "Ice is cold. Ports shut. Nobody sails now.",
        "Nobody sails now. Bread is warm.",
        "Bread is warm. We eat it.",
    ]


def test_it_is_rather_cut_between_paragraphs() -> None:
    text = "Ice is cold. The port is shut today.\n\nNobody sails. Bread is warm here. We eat it."
    assert of(text, most=10, overlap=0)[0] == "Ice is cold. The port is shut today."


def test_headings_stand_beside_what_is_under_them() -> None:
    text = "Before.\n# Harbour\nIt is big.\n## Ice\nIt is thick.\n# Bakery #\nIt is warm."
    found = chunks(text, words, most=50, overlap=0)
    assert [(text[c.begin : c.end].split("\n")[-1], c.headings) for c in found] == [
        ("Before.", ()),
        ("It is big.", ()),
        ("It is thick.", ("Harbour",)),
        ("It is warm.", ()),
    ]
    assert [text[c.begin : c.end].startswith("#") for c in found] == [False, True, True, True]


def test_a_word_without_an_end_is_cut_too() -> None:
    text = "a" * 500
    found = chunks(text, words, most=10, overlap=2)
    assert "".join(text[c.begin : c.end] for c in found if isinstance(c, Chunk)) == text
    assert max(map(len, (text[c.begin : c.end] for c in found))) <= 60


def test_pages_of_east_asian_text_are_cut_at_their_own_stops() -> None:
    text = "港は凍る。" * 30
    found = of(text, most=5, overlap=0)
    assert all(re.fullmatch("(港は凍る。)+", part) for part in found)
