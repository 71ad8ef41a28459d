"""One form for all bytes that say the same JSON: that of RFC 8785, which is what the record's hashes are made of.

Two values have one form only where a reader could not tell them apart. Whole numbers that no double holds, and the
infinities, are outside of RFC 8785; they are written with all their digits, and as ECMAScript names them.
"""

from __future__ import annotations

import hashlib
import json
import math
from decimal import Decimal
from typing import Any

import orjson

_SAFE = 2**53 - 1
"""The largest whole number that every reader takes for the same."""

_MOST_DIGITS = 21
"""Of a whole number that ECMAScript writes without an exponent."""
_MOST_ZEROS = 6
"""After the point, likewise; one less than that may lead."""


def canonical(raw: bytes, *, committed: bool = False) -> bytes:
    """The canonical form of the JSON in ``raw``. Raises ValueError where it is none.

    ``committed``: of an envelope, with ``sealed_sha256`` in the place of ``sealed`` in those members of ``data`` that
    have a ``commitment`` (``content``, ``title``), so that what is sealed may be cut off later, and not be changed.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return _slowly(raw, committed)
    if committed:
        _hash_what_is_sealed(value)
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS) if _is_plain(value) else _slowly(raw, committed)


def _hash_what_is_sealed(envelope: Any) -> None:
    match envelope:
        case {"data": dict(members)}:
            for member in members.values():
                if type(member) is dict and "commitment" in member and type(member.get("sealed")) is str:
                    sealed = member.pop("sealed").encode(errors="surrogatepass")
                    member["sealed_sha256"] = hashlib.sha256(sealed).hexdigest()


def _is_plain(value: Any) -> bool:
    """Whether orjson writes it as RFC 8785 does: names sort alike, numbers look as in ECMAScript."""
    parts: list[Any] = [[value]]
    while parts:
        part = parts.pop()
        if type(part) is dict:
            if not "".join(part).isascii():
                return False
            part = part.values()
        for one in part:
            kind = type(one)
            if kind is str:
                continue
            if kind is dict or kind is list:
                parts.append(one)
            elif kind is int:
                if not -_SAFE <= one <= _SAFE:
                    return False
            elif kind is float and not (1e-4 <= abs(one) < 1e15 and one % 1):
                return False
    return True


def _slowly(raw: bytes, committed: bool) -> bytes:
    try:
        value = json.loads(raw.decode())
        if committed:
            _hash_what_is_sealed(value)
        return "".join(_written(value)).encode()
    except orjson.JSONEncodeError:
        raise ValueError("half a character stands in it") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _written(value: Any) -> list[str]:
    match value:
        case dict():
            parts = [
                "".join([*_written(name), ":", *_written(value[name])])
                for name in sorted(value, key=lambda name: name.encode("utf-16-be"))
            ]
            return ["{", ",".join(parts), "}"]
        case list():
            return ["[", ",".join("".join(_written(part)) for part in value), "]"]
        case str():
            return [orjson.dumps(value).decode()]
        case float():
            return [_number(value)]
        case _:
            return [json.dumps(value)]


def _number(value: float) -> str:
    """ECMA-262, Number::toString, whose names these are: the digits s, k of them, the point after n of them."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value == 0:
        return "0"
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    s, k, minus = "".join(map(str, digits)), len(digits), "-" if sign else ""
    n = k + exponent
    if k <= n <= _MOST_DIGITS:
        return f"{minus}{s}{'0' * (n - k)}"
    if 0 < n <= _MOST_DIGITS:
        return f"{minus}{s[:n]}.{s[n:]}"
    if -_MOST_ZEROS < n <= 0:
        return f"{minus}0.{'0' * -n}{s}"
    return f"{minus}{s[0]}{'.' if k > 1 else ''}{s[1:]}e{n - 1:+d}"
