"""A long answer as several messages."""

from __future__ import annotations

import re
from collections.abc import Callable

_BREAKS = tuple(re.compile(one) for one in (r"\n\s*\n", r"\n", r"(?<=[.!?])\s", r"\s"))
"""Where a message ends best: between paragraphs, lines, sentences, words."""

_LEAST = 0.5
"""Of a message that has to be full before it ends there."""


def utf16(character: str) -> int:
    """How many units of UTF-16 it is, which the strictest of tools count."""
    return 2 if ord(character) > 0xFFFF else 1


def parts(text: str, limit: int, cost: Callable[[str], int] = utf16) -> list[str]:
    """``text`` in messages that each cost ``limit`` at most; the white space between two is dropped.

    What a message is depends only on what stands in it and before it, so those that were followed by another stay as
    they are while the text grows.
    """
    found = []
    text = text.strip()
    while text:
        end, spent = 0, 0
        while end < len(text) and spent + cost(text[end]) <= limit:
            spent += cost(text[end])
            end += 1
        if end < len(text):
            end = _good_end(text, end)
        found.append(text[:end].rstrip())
        text = text[end:].lstrip()
    return found


def _good_end(text: str, end: int) -> int:
    for wanted in _BREAKS:
        # What is looked at ends with the message, so that nothing which comes later changes its end.
        places = [one.start() for one in wanted.finditer(text, 0, end) if one.start() >= end * _LEAST]
        if places:
            return places[-1]
    return end
