"""Text as Postgres can hold it."""

from __future__ import annotations

from typing import Any

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def storable(value: str) -> str:
    """``value`` with U+FFFD for each NUL, which no Postgres text holds. Its length in code points stays."""
    return value.replace("\0", _REPLACEMENT)


def storable_json(value: Any) -> Any:
    """The same for every string inside a JSON value, keys included."""
    match value:
        case str():
            return storable(value)
        case dict():
            return {storable_json(name): storable_json(part) for name, part in value.items()}
        case list() | tuple():
            return [storable_json(part) for part in value]
        case _:
            return value
