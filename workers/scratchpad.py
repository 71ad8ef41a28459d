"""The part of an answer between ``<scratchpad>`` and ``</scratchpad>``, which the model writes for itself.

It is cut out while the answer streams, wherever a tag may be cut in two; of what looks like the beginning of a tag no
more is held back than may still become one. Tags count in any case, and nest. A part that is never closed goes to the
end; a closing tag by itself is text like any other.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from event_schemas.logprobs import TokenLogprob
from workers.inference.port import Delta

_OPEN, _CLOSE = "<scratchpad>", "</scratchpad>"
_TAG = re.compile(f"(?P<open>{_OPEN})|{_CLOSE}", re.IGNORECASE | re.ASCII)


@dataclass(slots=True)
class _Heard:
    """A delta of which ``left`` characters are not judged yet."""

    left: int
    logprobs: Sequence[TokenLogprob]
    whole: bool = True
    """Nothing of it was cut out."""


class Scratchpad:
    """``text`` is what was cut out, as far as it came, without the outermost tags.

    The logprobs of a delta are shown with the last of its text, and only where all of it is shown.
    """

    def __init__(self) -> None:
        self._cut: list[str] = []
        self._depth = 0
        self._held = ""
        self._heard: deque[_Heard] = deque()

    @property
    def text(self) -> str:
        return "".join(self._cut)

    def feed(self, delta: Delta) -> list[Delta]:
        """What of ``delta``, and of what was held back before it, is sure to be shown."""
        self._heard.append(_Heard(len(delta.text), delta.logprobs))
        text = self._held + delta.text
        shown: list[Delta] = []
        at = 0
        for tag in _TAG.finditer(text):
            if tag["open"] is None and not self._depth:
                continue
            shown += self._judged(text[at : tag.start()])
            was_inside, at = self._depth > 0, tag.end()
            self._depth += 1 if tag["open"] is not None else -1
            self._take(len(tag[0]))
            if was_inside and self._depth:
                self._cut.append(tag[0])
        sure = len(text) - self._begun(text[at:])
        shown += self._judged(text[at:sure])
        self._held = text[sure:]
        return shown

    def rest(self) -> list[Delta]:
        """What was held back, once nothing follows."""
        held, self._held = self._held, ""
        return self._judged(held)

    def _begun(self, text: str) -> int:
        """Length of the longest beginning of a tag, short of the whole, with which ``text`` ends."""
        at = text.rfind("<")
        if at < 0:
            return 0
        tail = text[at:].lower()
        tags = (_OPEN, _CLOSE) if self._depth else (_OPEN,)
        return len(text) - at if any(tag.startswith(tail) for tag in tags) else 0

    def _judged(self, text: str) -> list[Delta]:
        """``text`` follows what was judged before; it is shown, or cut out."""
        if self._depth:
            self._cut.append(text)
            self._take(len(text))
            return []
        return list(self._shown(text))

    def _take(self, length: int) -> None:
        """So many characters are cut out."""
        while self._heard and (length or not self._heard[0].left):
            first = self._heard[0]
            taken = min(length, first.left)
            length -= taken
            first.left -= taken
            first.whole = False
            if not first.left:
                self._heard.popleft()

    def _shown(self, text: str) -> Iterator[Delta]:
        at = 0
        while self._heard and (at < len(text) or not self._heard[0].left):
            first = self._heard[0]
            taken = min(len(text) - at, first.left)
            piece = text[at : at + taken]
            at += taken
            first.left -= taken
            if not first.left:
                self._heard.popleft()
            logprobs = first.logprobs if first.whole and not first.left else ()
            if piece or logprobs:
                yield Delta(piece, logprobs)
