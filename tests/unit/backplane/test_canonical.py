from __future__ import annotations

import hashlib
import json
from typing import Any

import orjson
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from backplane.security.canonical import canonical
from backplane.security.chain import next_hash
from event_schemas.codec import encode
from tests.unit.projections.story import Story

_SAFE = 2**53 - 1
text = st.text(st.characters(exclude_categories=["Cs"]))
# Names at the edges where UTF-8 and UTF-16 sort in different ways, and words that look like numbers.
names = text | st.sampled_from(["\ue000", "\ufe0f", "\U0001f600", "a", "\U00010000b", "\ufffd"])
words = text | st.sampled_from([':1.0,"', "[1e5]", '\\":12345678901234567,', "user:01990e5]"])
numbers = st.integers(-_SAFE, _SAFE) | st.floats(allow_nan=False, allow_infinity=False)
edges = st.sampled_from([1.0, -0.0, 1e16, 1e21, 1e-6, 1e-7, 9e20, 5e-324, 0.1, 123456789.5, 1e15, 999999999999999.9])
values = st.recursive(
    st.none() | st.booleans() | numbers | edges | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=20,
)


@given(values, st.booleans())
def test_it_is_the_form_of_rfc_8785(value: Any, ascii_only: bool) -> None:
    raw = json.dumps({"v": value}, ensure_ascii=ascii_only, indent=1).encode()
    assert canonical(raw) == rfc8785.dumps(orjson.loads(raw))


@given(st.dictionaries(names, words, min_size=1))
def test_what_is_in_it_already_stays(value: dict[str, str]) -> None:
    once = canonical(json.dumps(value).encode())
    assert canonical(once) == once


@pytest.mark.parametrize(
    ("raw", "form"),
    [
        (b'{"seed": 9223372036854775807}', b'{"seed":9223372036854775807}'),
        (b'{"seed": 123456789012345678901234567890}', b'{"seed":123456789012345678901234567890}'),
        (b'{"t": 1e400, "u": -1e400}', b'{"t":Infinity,"u":-Infinity}'),
        (b'{"a": 1, "a": 2}', b'{"a":2}'),
        (b'{"a":-0}', b'{"a":0}'),
    ],
)
def test_what_rfc_8785_knows_nothing_of_is_not_rounded(raw: bytes, form: bytes) -> None:
    assert canonical(raw) == form


@pytest.mark.parametrize("raw", [b"", b"{", b'{"a":1', b"\xff", b'"\xed\xa0\x80"', b'"\\ud800"', b"[" * 100_000])
def test_what_is_no_json_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError):
        canonical(raw)


def test_a_hash_is_of_the_commitment_and_of_a_hash_of_what_is_sealed() -> None:
    fact = json.loads(encode(Story().renamed("A")))

    def hashed(content: object) -> bytes:
        return next_hash(bytes(32), json.dumps(fact | {"data": fact["data"] | {"content": content}}).encode())

    def cut(sealed: str) -> dict[str, object]:
        return {"commitment": "c", "sealed_sha256": hashlib.sha256(sealed.encode()).hexdigest()}

    sealed = hashed({"commitment": "c", "sealed": "x"})
    assert sealed == hashed(cut("x")) != hashed(cut("y"))
    assert sealed != hashed({"commitment": "c", "sealed": "y"})
    assert sealed != hashed(cut("x") | {"sealed": "y"})
    assert sealed != hashed({"commitment": "c"})
    assert sealed != hashed({"commitment": "d", "sealed": "x"})
    titled = [{**fact, "data": {"title": title}} for title in ({"commitment": "c", "sealed": "x"}, cut("x"))]
    assert len({canonical(json.dumps(one).encode(), committed=True) for one in titled}) == 1
    assert hashed({"sealed": "x"}) != hashed({"sealed": "y"})
    assert hashed({"commitment": "c", "sealed": "x", "seed": 2**60}) == hashed(cut("x") | {"seed": 2**60})
