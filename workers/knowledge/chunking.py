"""A document's text in pieces that fit an embedder, cut where its author cut it: headings, paragraphs, sentences.

Pure. Pieces are places in the text, so that nothing is lost or changed on the way; what stands beside a piece, its
headings, is told apart from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

Lengths = Callable[[Sequence[str]], list[int]]
"""Tokens of each text."""

_HEADING = re.compile(r"^(#{1,6})[ \t]+(\S.*?)[ \t]*#*[ \t]*$", re.MULTILINE)
_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
# After a full stop and the like, quotes and brackets that close included; or at the end of a line.
_SENTENCE = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|\n+|(?<=[。！？])")
_WORD = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Chunk:
    """``text[begin:end]``, in code points. ``headings`` are those that it stands under, the outermost first."""

    begin: int
    end: int
    headings: tuple[str, ...] = field(default=())


def chunks(text: str, lengths: Lengths, *, most: int, overlap: int) -> list[Chunk]:
    """The whole of ``text``, in order, blanks around pieces left out.

    None has over ``most`` tokens, and none begins over ``overlap`` tokens before the one before it ends; both as
    ``lengths`` counts the smallest pieces, which may differ from what it counts of a chunk by a few.
    """
    found: list[Chunk] = []
    for begin, end, headings in _sections(text):
        pieces = list(_pieces(text, begin, end, lengths, most))
        found += [Chunk(*span, headings) for span in _packed(pieces, most, overlap)]
    return found


@dataclass(frozen=True, slots=True)
class _Piece:
    begin: int
    end: int
    tokens: int
    opens: bool
    """It begins a paragraph."""


def _sections(text: str) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Places between headings, each with its own heading in it, and the headings that it stands under."""
    above: list[tuple[int, str]] = []
    begin, headings = 0, tuple[str, ...]()
    for match in _HEADING.finditer(text):
        yield begin, match.start(), headings
        level = len(match[1])
        above = [each for each in above if each[0] < level]
        headings = tuple(title for _, title in above)
        above.append((level, match[2]))
        begin = match.start()
    yield begin, len(text), headings


def _pieces(text: str, begin: int, end: int, lengths: Lengths, most: int) -> Iterator[_Piece]:
    """Sentences; words, or parts of words, only where a sentence alone has over ``most`` tokens."""
    for paragraph in _split(text, begin, end, _PARAGRAPH):
        sentences = list(_split(text, *paragraph, _SENTENCE))
        counted = lengths([text[a:b] for a, b in sentences]) if sentences else []
        for number, ((a, b), tokens) in enumerate(zip(sentences, counted, strict=True)):
            if tokens <= most:
                yield _Piece(a, b, max(tokens, 1), opens=number == 0)
            else:
                yield from _cut(text, a, b, lengths, most, opens=number == 0)


def _cut(text: str, begin: int, end: int, lengths: Lengths, most: int, *, opens: bool) -> Iterator[_Piece]:
    """Halves of halves, cut between words where there are any."""
    if end - begin <= 1:
        yield _Piece(begin, end, most, opens)  # nothing is smaller than a character
        return
    middle = (begin + end) // 2
    gaps = [match.span() for match in _WORD.finditer(text, begin, end) if begin < match.start() and match.end() < end]
    left, right = min(gaps, key=lambda gap: abs(gap[0] - middle), default=(middle, middle))
    halves = [(begin, left), (right, end)]
    for number, ((a, b), tokens) in enumerate(zip(halves, lengths([text[a:b] for a, b in halves]), strict=True)):
        first = opens and number == 0
        if tokens <= most:
            yield _Piece(a, b, max(tokens, 1), first)
        else:
            yield from _cut(text, a, b, lengths, most, opens=first)


def _split(text: str, begin: int, end: int, between: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """Places between matches, without the blanks around them; none that is blank."""
    at = begin
    for match in between.finditer(text, begin, end):
        yield from _stripped(text, at, match.end())
        at = match.end()
    yield from _stripped(text, at, end)


def _stripped(text: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    part = text[begin:end]
    kept = part.strip()
    if kept:
        left = begin + len(part) - len(part.lstrip())
        yield left, left + len(kept)


def _packed(pieces: Sequence[_Piece], most: int, overlap: int) -> Iterator[tuple[int, int]]:
    """As many pieces as go in a chunk. It rather ends before a paragraph, where that leaves it more than half full."""
    first = 0
    while first < len(pieces):
        after, tokens, at_paragraph = first, 0, None
        while (after < len(pieces) and tokens + pieces[after].tokens <= most) or after == first:
            if pieces[after].opens and tokens * 2 > most:
                at_paragraph = after
            tokens += pieces[after].tokens
            after += 1
        if after < len(pieces) and not pieces[after].opens and at_paragraph is not None:
            after = at_paragraph
        yield pieces[first].begin, pieces[after - 1].end
        if after == len(pieces):
            return
        first = _repeated_from(pieces, first, after, min(overlap, most - pieces[after].tokens))


def _repeated_from(pieces: Sequence[_Piece], first: int, after: int, overlap: int) -> int:
    """Where the next chunk begins, so that what it repeats leaves room for something new."""
    begin, tokens = after, 0
    while begin - 1 > first and tokens + pieces[begin - 1].tokens <= overlap:
        begin -= 1
        tokens += pieces[begin].tokens
    return begin
