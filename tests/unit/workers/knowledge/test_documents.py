from __future__ import annotations

import html
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import documents
from workers.knowledge import documents as reading
from workers.knowledge.documents import UnreadableDocument, kind_of, text_of
from workers.knowledge.html_text import text_of_html


def read(raw: bytes) -> str:
    return text_of(raw, kind_of(raw))


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"Only words here.", "text"),
        (b"\xef\xbb\xbfWith a mark.", "text"),
        ("In another encoding.".encode("utf-16"), "text"),
        (b"# A heading\n\nwords", "markdown"),
        (b"- one\n- two", "markdown"),
        (b"<!-- x --><!DOCTYPE html><title>t</title>", "html"),
        (b"<HTML><body>t</body></HTML>", "html"),
        (documents.pdf("words"), "pdf"),
        (documents.word("words"), "docx"),
    ],
)
def test_a_kind_is_seen_in_the_bytes(raw: bytes, kind: str) -> None:
    assert kind_of(raw) == kind


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "empty"),
        (b" \n ", "empty"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "unknown_kind"),
        (b"text\0with\0nothing", "unknown_kind"),
        (b"PK\x03\x04 and no more", "damaged"),
        (documents.word("words")[:-200], "damaged"),
        (b"%PDF-1.4 and no more", "damaged"),
        (documents.pdf(""), "no_text"),
    ],
)
def test_what_cannot_be_read_says_why(raw: bytes, reason: str) -> None:
    with pytest.raises(UnreadableDocument) as raised:
        read(raw)
    assert raised.value.reason == reason


def test_pdf_pages_are_read_in_order() -> None:
    text = read(documents.pdf("The first page.", "The second page."))
    assert text.split("\n\n") == ["The first page.", "The second page."]


def test_headings_and_tables_of_a_docx_are_kept() -> None:
    raw = documents.word("It is big.", heading="Harbour", table=[["year", "ships"], ["1911", "412"]])
    assert read(raw) == "# Harbour\n\nIt is big.\n\nyear | ships\n1911 | 412"


def test_a_docx_that_unpacks_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_MOST_UNPACKED_BYTES", 4 << 20)
    raw = documents.bomb(8 << 20)
    assert len(raw) < 100_000
    with pytest.raises(UnreadableDocument, match="unpacked") as raised:
        read(raw)
    assert raised.value.reason == "too_large"


def test_html_is_what_a_reader_sees() -> None:
    page = """<!doctype html><html><head><title>no</title><style>p {}</style></head><body>
      <script>alert("no")</script><h2>The &amp; harbour</h2><p>It is <b>big</b>,
      and old.</p><ul><li>ice<li>ships</ul><table><tr><td>a</td><td>b</td></tr></table><pre>x
  y</pre></body></html>"""
    assert read(page.encode()) == "## The & harbour\n\nIt is big, and old.\n\nice\nships\n\n| a | b\n\nx\ny"


def test_line_ends_are_one_kind() -> None:
    assert read(b"one\r\ntwo\rthree") == "one\ntwo\nthree"


@given(st.binary(max_size=2000))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    with suppress(UnreadableDocument):
        assert read(raw).strip()


@given(st.text(max_size=500))
def test_html_loses_no_words(words: str) -> None:
    assert text_of_html(f"<p>{html.escape(words)}</p>").split() == words.split()
