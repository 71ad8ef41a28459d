"""Does an answer fit its schema? Blocks, as long as the schema's regular expressions like: for a process of its own.

What is JSON here is what RFC 8259 says, so numbers may be of any size.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NoReturn

from jsonschema import Draft202012Validator, ValidationError, validators
from jsonschema.exceptions import best_match
from referencing import Registry

Span = tuple[int, int]
"""From and to, in the text."""
Fault = tuple[str, str, str]
"""JSON pointer, keyword, and what is wrong."""

_LONGEST_MESSAGE = 300
_BLANKS = " \t\r\n"
_FENCED = re.compile(r"```[^\n`]*\n(.*?)```", re.DOTALL)


def get_ready() -> None:
    """To be called first in a process: that has then read what it needs."""


def check(text: str, schema: dict[str, Any], *, loose: bool) -> Span | Fault:
    """Where in ``text`` the answer stands, or why it does not fit.

    ``loose``: the model was told of the schema in words, so that the answer may stand in a fence or in prose; the first
    JSON that fits counts. Else it is the whole text.
    """
    most_digits = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)  # the deadline bounds what a number may cost
    try:
        return _checked(text, schema, loose=loose)
    finally:
        sys.set_int_max_str_digits(most_digits)


def _checked(text: str, schema: dict[str, Any], *, loose: bool) -> Span | Fault:
    validator = _VALIDATOR(schema, registry=Registry())  # which knows no schema but this one, and fetches none
    first: Fault | None = None
    for begin, end in _candidates(text) if loose else [_stripped(text, 0, len(text))]:
        fault = _fault(text[begin:end], validator)
        if fault is None:
            return begin, end
        if first is None or (first[1] == "json" and fault[1] != "json"):
            first = fault
    assert first is not None, "the whole text is always looked at"
    return first


def _candidates(text: str) -> Iterator[Span]:
    yield _stripped(text, 0, len(text))
    for fenced in _FENCED.finditer(text):
        yield _stripped(text, fenced.start(1), fenced.end(1))
    at = 0
    while (bracket := _BRACKET.search(text, at)) is not None:
        at = bracket.end()
        try:
            _, end = _DECODER.raw_decode(text, bracket.start())
        except (ValueError, RecursionError):
            continue
        yield bracket.start(), end
        at = end


def _stripped(text: str, begin: int, end: int) -> Span:
    while begin < end and text[begin] in _BLANKS:
        begin += 1
    while begin < end and text[end - 1] in _BLANKS:
        end -= 1
    return begin, end


def _fault(text: str, validator: Any) -> Fault | None:
    try:
        value, end = _DECODER.raw_decode(text)
    except RecursionError:
        return "", "json", "it is nested too deeply"
    except json.JSONDecodeError as error:
        return "", "json", f"it is not JSON: {error.msg} at character {error.pos}"
    except ValueError as error:
        return "", "json", f"it is not JSON: {error}"
    if end < len(text):
        return "", "json", f"it is not JSON: more follows at character {end}"
    try:
        worst = best_match(validator.iter_errors(value))
    except RecursionError:
        return "", "json", "it is nested too deeply"
    if worst is None:
        return None
    pointer = "".join("/" + str(each).replace("~", "~0").replace("/", "~1") for each in worst.absolute_path)
    return pointer, str(worst.validator), worst.message[:_LONGEST_MESSAGE]


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _multiple_of(validator: Any, of: float, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """As decimals, in which 1.1 is eleven times 0.1."""
    if validator.is_type(instance, "number"):
        try:
            fits = not Fraction(str(instance)) % Fraction(str(of))
        except ValueError:  # of infinity, which is what a float makes of 1e400
            fits = False
        if not fits:
            yield ValidationError(f"{instance!r} is not a multiple of {of!r}")


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """``$`` is the very end, and ``\\d`` is 0 to 9, as in ECMA 262."""
    if validator.is_type(instance, "string"):
        ends = pattern.endswith("$") and not pattern.endswith(r"\$")
        if not re.search(pattern[:-1] + r"\Z" if ends else pattern, instance, re.ASCII):
            yield ValidationError(f"{instance!r} does not match {pattern!r}")


_BRACKET = re.compile(r"[{\[]")
_DECODER = json.JSONDecoder(parse_constant=_no_number)
_VALIDATOR = validators.extend(Draft202012Validator, {"multipleOf": _multiple_of, "pattern": _pattern})
