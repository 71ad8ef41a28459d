from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.answer_check import check

ANY: dict[str, Any] = {}
POINT = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": False}


def found(text: str, schema: dict[str, Any], *, loose: bool = False) -> str | tuple[str, str]:
    """The JSON that fits, or (pointer, keyword)."""
    told = check(text, schema, loose=loose)
    return text[told[0] : told[1]] if len(told) == 2 else told[:2]


@pytest.mark.parametrize(
    ("text", "schema", "told"),
    [
        (' {"x": 1}\n', POINT, '{"x": 1}'),
        ('{"x": "1"}', POINT, ("/x", "type")),
        ('{"x": 1, "y": 2}', POINT, ("", "additionalProperties")),
        ("{}", POINT, ("", "required")),
        ('{"a/b": {"~": 1}}', {"properties": {"a/b": {"properties": {"~": {"type": "null"}}}}}, ("/a~1b/~0", "type")),
        ('{"x": 1', POINT, ("", "json")),
        ('{"x": 1} {"x": 2}', POINT, ("", "json")),
        ("Sure: 1", ANY, ("", "json")),
        ("```\n1\n```", ANY, ("", "json")),
        ("NaN", ANY, ("", "json")),
        ("-Infinity", ANY, ("", "json")),
        ("\u00a01", ANY, ("", "json")),
        ('"a\nb"', ANY, ("", "json")),
        ("[" * 100_000, ANY, ("", "json")),
        ("[" * 900 + "]" * 900, ANY, "[" * 900 + "]" * 900),
        ("1e400", {"type": "number", "minimum": 3}, "1e400"),
        ("1e400", {"multipleOf": 2}, ("", "multipleOf")),
        ("9" * 5000, {"type": "integer"}, "9" * 5000),
        ("1.1", {"multipleOf": 0.1}, "1.1"),
        ("1.15", {"multipleOf": 0.1}, ("", "multipleOf")),
        ("1.0", {"type": "integer"}, "1.0"),
        ('"\\ud800"', {"type": "string", "maxLength": 1}, '"\\ud800"'),
        ('"a\\n"', {"pattern": "^a$"}, ("", "pattern")),
        ('"a$"', {"pattern": "a\\$"}, '"a$"'),
        ('"\u0663"', {"pattern": "^\\d$"}, ("", "pattern")),
        ('{"a": 1, "a": 2}', {"properties": {"a": {"const": 2}}}, '{"a": 1, "a": 2}'),
        ("true", {"const": 1}, ("", "const")),
    ],
)
def test_the_whole_text_has_to_fit(text: str, schema: dict[str, Any], told: str | tuple[str, str]) -> None:
    assert found(text, schema) == told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('Sure! ```json\n{"x": 1}\n``` Anything else?', '{"x": 1}'),
        ('{"x": 1} is the answer.', '{"x": 1}'),
        ('An example is {"y": 1}; yours is {"x": 2}, not {"x": 3}.', '{"x": 2}'),
        ("I cannot do that.", ("", "json")),
        ('It is {"x": "one"}.', ("/x", "type")),
        ("{ not [ this {", ("", "json")),
        ('```\n{"x": 1}', '{"x": 1}'),
    ],
)
def test_what_was_told_in_words_is_found_in_words(text: str, told: str | tuple[str, str]) -> None:
    assert found(text, POINT, loose=True) == told


def test_a_fault_is_told_in_the_validators_words_and_briefly() -> None:
    told = check('{"x": "' + "y" * 1000 + '"}', POINT, loose=False)
    assert len(told) == 3
    assert len(told[2]) <= 300
    assert check('{"x": null}', POINT, loose=False) == ("/x", "type", "None is not of type 'integer'")


def test_nothing_is_fetched() -> None:
    # Admission refuses such a schema; no socket is open to a test without markers, and none is tried.
    with pytest.raises(Exception, match="Unresolvable"):
        check("1", {"$ref": "https://example.com/schema.json"}, loose=False)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(_VALUES, st.sampled_from(["", " ", "\n\n", "\t\r\n"]))
def test_what_json_writes_is_found_whole(value: Any, blank: str) -> None:
    text = json.dumps(value)
    assert found(blank + text + blank, ANY) == text


@given(st.lists(st.sampled_from(["{", "}", "[", "]", '"', "1", ",", ":", "a", "```", "\n", " "]), max_size=20))
def test_what_is_found_in_words_is_json(parts: list[str]) -> None:
    told = found("".join(parts), ANY, loose=True)
    if isinstance(told, str):
        json.loads(told)


def test_what_a_number_may_cost_elsewhere_stays_as_it_was() -> None:
    before = sys.get_int_max_str_digits()
    assert check("9" * 5000, {"type": "integer"}, loose=False) == (0, 5000)
    assert sys.get_int_max_str_digits() == before
