"""Regular expressions that mean the same everywhere, and that an engine can follow one character after the other."""

from __future__ import annotations

import re

# An escape of a class, of a control character or of punctuation; a number of times; a group that is not captured.
_ESCAPE = re.compile(r"\\(?:[dDwWsStnrfv]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|[^0-9a-zA-Z_])")
_TIMES = re.compile(r"\{[0-9]+(?:,[0-9]*)?\}")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_IN_CLASS = re.compile(r"(?:\\(?:[dDwWsStnrfv]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|[^0-9a-zA-Z_])|[^\\\[])*", re.DOTALL)
_OPERATORS = ("&&", "--", "~~")
_LETTER = re.compile(r"[^\\\[\]{}()^$*+?|]|[\]}|)]", re.DOTALL)
_QUANTIFIER = re.compile(r"[*+?]\??")
_GROUP = re.compile(r"\((?:\?:)?(?!\?)")


def is_plain(pattern: str) -> bool:
    """Whether it has no lookaround, backreference, border of a word or operator on sets, and ``^`` and ``$`` at its
    ends only."""
    at = int(pattern.startswith("^"))
    end = len(pattern) - (pattern.endswith("$") and not pattern.endswith("\\$"))
    repeated = False
    while at < end:
        if (quantifier := _QUANTIFIER.match(pattern, at) or _TIMES.match(pattern, at)) is not None:
            if repeated:  # such as a++, which is possessive in some dialects
                return False
            repeated, at = True, quantifier.end()
            continue
        repeated = False
        found = _ESCAPE.match(pattern, at) or _LETTER.match(pattern, at) or _GROUP.match(pattern, at)
        if found is None:
            found = _CLASS.match(pattern, at)
            if found is None or not _is_plain_class(found[0]):
                return False
        at = found.end()
    return at == end


def _is_plain_class(found: str) -> bool:
    inner = found[1:-1]
    return _IN_CLASS.fullmatch(inner) is not None and not any(operator in inner for operator in _OPERATORS)
