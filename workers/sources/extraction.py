"""The text of pages and feeds. It runs in a process of its own, since what strangers wrote takes any time and memory.

Run as ``python -m workers.sources.extraction``: it reads frames from standard input and writes one for each to standard
output. A frame is four bytes of length, then JSON; to a question's the page's bytes are added, likewise.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import sys
from datetime import datetime
from io import BytesIO
from typing import Any, BinaryIO

MARKUP = ("text/html", "application/xhtml+xml")
FEEDS = ("application/rss+xml", "application/atom+xml", "application/xml", "text/xml")
TEXTS = ("text/plain", "text/markdown", "text/csv", "application/json", "application/feed+json")
MOST_CHARACTERS = 200_000
"""That are kept of a page."""

LENGTH = struct.Struct("!I")
_MOST_MEMORY = 2 * 1024**3
_MOST_ITEMS = 30
_ITEM_CHARACTERS = 1000


class NoText(ValueError):
    """There is nothing to read in it. The message holds nothing of it."""


def extracted(body: bytes, media_type: str, charset: str | None) -> dict[str, str | None]:
    """``title``, None where it has none, and ``text``. Raises NoText."""
    if media_type in MARKUP:
        title, text = _page(body)
    elif media_type in FEEDS:
        title, text = _feed(body)
    else:
        title, text = None, _decoded(body, charset)
    text = text.replace("\0", "\ufffd").strip()
    if not text:
        raise NoText("there is no text in it")
    return {"title": title and " ".join(title.replace("\0", "\ufffd").split())[:300], "text": text[:MOST_CHARACTERS]}


def _page(body: bytes) -> tuple[str | None, str]:
    from trafilatura import bare_extraction, html2txt

    found: Any = bare_extraction(body, with_metadata=True, include_comments=False, include_tables=True)
    text = (found.text if found is not None else None) or html2txt(body) or html2txt(b"<html><body>" + body)
    return (found.title if found is not None else None), text or ""


def _feed(body: bytes) -> tuple[str | None, str]:
    import feedparser

    # From a stream: of a string it would believe that it is an address or a file's name.
    found = feedparser.parse(BytesIO(body), sanitize_html=True)
    if not found.version and not found.entries:
        raise NoText("it is neither a page nor a feed")
    return found.feed.get("title"), "\n\n".join(_item(one) for one in found.entries[:_MOST_ITEMS])


def _item(entry: Any) -> str:
    from trafilatura import html2txt

    at = entry.get("published_parsed") or entry.get("updated_parsed")
    date = f" ({datetime(*at[:6]).date().isoformat()})" if at else ""
    summary = " ".join(html2txt(f"<html><body>{entry.get('summary', '')}</body></html>").split())[:_ITEM_CHARACTERS]
    lines = [f"{entry.get('title', 'Untitled')}{date}", summary, entry.get("link", "")]
    return "\n".join(line for line in lines if line)


def _decoded(body: bytes, charset: str | None) -> str:
    try:
        return body.decode(charset or "utf-8", errors="replace")
    except LookupError:
        return body.decode(errors="replace")


def _answered(question: dict[str, Any], body: bytes) -> dict[str, str | None]:
    try:
        return extracted(body, question["media_type"], question["charset"])
    except NoText as nothing:
        return {"error": str(nothing)}
    except ImportError as missing:
        return {"error": f"{missing.name} is not installed: install parley[knowledge]", "broken": "yes"}
    except (MemoryError, RecursionError):
        return {"error": "it is too deep or too large to be read"}
    except Exception as error:  # whatever a parser says of what it was given
        return {"error": f"it cannot be read ({type(error).__name__})"}


def _frame(stream: BinaryIO) -> bytes | None:
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    body = stream.read(length)
    return body if len(body) == length else None


def main() -> None:
    """Until standard input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    while (question := _frame(sys.stdin.buffer)) is not None and (body := _frame(sys.stdin.buffer)) is not None:
        answer = json.dumps(_answered(json.loads(question), body)).encode()
        answers.write(LENGTH.pack(len(answer)) + answer)
        answers.flush()


if __name__ == "__main__":
    main()
