"""Sources that stand in a prompt's text: URLs and marks at its beginning. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from event_schemas.sources import SiteWish, SourceWish, TextWish, UrlWish

_MARK = re.compile(r"\|(?P<kind>CONTEXT|CONTENT|RAG)\|")
_URL = re.compile(r"https?://\S+")
_CLOSING = ".,;:!"
"""What may follow a URL without being a part of it."""


class BadMark(ValueError):
    """A mark without its end, or with nothing in it."""


class Marked(NamedTuple):
    wishes: tuple[SourceWish, ...]
    question: str
    """What follows them; the URLs themselves where nothing does."""


def parse(text: str, *, urls: bool, more: bool = False) -> Marked:
    """Take off what stands before the question; URLs only where ``urls``. Raises BadMark.

    ``more``: other parts of the message follow this text, so the question may be one of them.
    """
    wishes: list[SourceWish] = []
    named: list[str] = []
    rest = text.lstrip()
    while True:
        if mark := _MARK.match(rest):
            kind, end = mark["kind"], f"|/{mark['kind']}|"
            inner, found, after = rest[mark.end() :].partition(end)
            if not found:
                raise BadMark(f"`|{kind}|` has no `{end}` after it")
            if not (inner := inner.strip()):
                raise BadMark(f"nothing stands between `|{kind}|` and `{end}`")
            wishes.append(SiteWish(site=inner) if kind == "RAG" else TextWish(text=inner))
        elif urls and (url := _URL.match(rest)):
            after = rest[url.end() :]
            named.append(url[0].rstrip(_CLOSING))
            wishes.append(UrlWish(url=named[-1]))
        else:
            break
        rest = after.lstrip()
    if not wishes:
        return Marked((), text)
    if not rest and not named and not more:
        raise BadMark("no question follows")
    return Marked(tuple(wishes), rest or " ".join(named))


def may_begin_with_sources(text: str) -> bool:
    """False for nearly every prompt, which then costs no look at its tenant's rules."""
    start = text.lstrip()[:12]
    return start.startswith(("http://", "https://")) or _MARK.match(start) is not None
