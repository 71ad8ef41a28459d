"""Types of request parameters, for what the two APIs' rules share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any], bool]


def boolean(value: Any) -> bool:
    return isinstance(value, bool)


def text(value: Any) -> bool:
    return isinstance(value, str)


def mapping(value: Any) -> bool:
    return isinstance(value, dict)


def sequence(value: Any) -> bool:
    return isinstance(value, list)


def texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def strings_by_name(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def whole(least: int, most: int | None = None) -> Check:
    """An integer within the bounds, which both belong to it."""
    return lambda value: type(value) is int and least <= value and (most is None or value <= most)


def number(least: float, most: float) -> Check:
    """A number within the bounds, which both belong to it."""
    return lambda value: type(value) in (int, float) and least <= value <= most


def one_of(*values: str) -> Check:
    return lambda value: isinstance(value, str) and value in values


def or_null(check: Check) -> Check:
    return lambda value: value is None or check(value)


def either(*checks: Check) -> Check:
    return lambda value: any(check(value) for check in checks)


def first_wrong(body: Mapping[str, Any], allowed: Mapping[str, Check]) -> str | None:
    """The first parameter whose value its check refuses."""
    return next((name for name, value in body.items() if name in allowed and not allowed[name](value)), None)


def first_unknown(body: Mapping[str, Any], *allowed: Mapping[str, Check] | frozenset[str]) -> str | None:
    """The first parameter that nobody knows."""
    return next((name for name in body if not any(name in known for known in allowed)), None)
