"""All that a reader of an HTML document sees, with its headings marked as Markdown marks them."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_UNSEEN = frozenset(("script", "style", "template", "noscript", "head", "svg", "math", "object"))
_FLOW = frozenset(("address", "article", "aside", "blockquote", "body", "details", "div", "figure", "footer", "form"))
_LISTS = frozenset(("dd", "dl", "dt", "figcaption", "header", "hr", "li", "main", "nav", "ol", "p", "pre"))
_BLOCKS = _FLOW | _LISTS | frozenset(("section", "summary", "table", "ul"))
_HEADINGS = {f"h{level}": level for level in range(1, 7)}


def text_of_html(html: str) -> str:
    parser = _Text()
    parser.feed(html)
    parser.close()
    text = re.sub(r"[ \t]*\n[ \t]*", "\n", "".join(parser.parts))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._unseen: list[str] = []
        self._verbatim = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._unseen:
            if tag == self._unseen[-1]:
                self._unseen.append(tag)
            return
        if tag in _UNSEEN:
            self._unseen.append(tag)
        elif tag in _HEADINGS:
            self.parts.append(f"\n\n{'#' * _HEADINGS[tag]} ")
        elif tag in _BLOCKS:
            self.parts.append("\n\n" if tag not in ("li", "dt", "dd") else "\n")
        elif tag in ("br", "tr"):
            self.parts.append("\n")
        elif tag in ("td", "th"):
            self.parts.append(" | ")
        self._verbatim += tag == "pre"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _UNSEEN:
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if self._unseen:
            if tag == self._unseen[-1]:
                self._unseen.pop()
            return
        if tag in _BLOCKS or tag in _HEADINGS:
            self.parts.append("\n\n" if tag not in ("li", "dt", "dd") else "\n")
        self._verbatim = max(0, self._verbatim - (tag == "pre"))

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.parts.append(data if self._verbatim else re.sub(r"\s+", " ", data))
