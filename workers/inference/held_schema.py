"""A JSON schema as llguidance takes it, which holds llama.cpp to it."""

from __future__ import annotations

from typing import Any

_OPTIONS = {
    # A small model would write blanks until its tokens are used up.
    "whitespace_flexible": False,
    # Admission takes only alternatives of which no two fit at once; llguidance sees that of fewer than it does.
    "coerce_one_of": True,
}


def held_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """``schema``, and how it is to be read."""
    return {**schema, "x-guidance": _OPTIONS}
