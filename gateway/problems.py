"""What goes wrong behind any door, before it is put in the words of that door's protocol."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from backplane.web.problems import Problem

_FAILURES = {"context_length_exceeded": 400, "invalid_request": 400, "content_erased": 409, "answer_does_not_fit": 502}
"""Statuses of generations that failed, by their reason; 500 of all others."""


def invalid(field: str, why: str) -> Problem:
    """``field`` as the client knows it."""
    return Problem(400, "invalid-request", "Invalid request", why, errors=[{"field": field, "message": why}])


def failed(detail: Mapping[str, Any]) -> Problem:
    """A generation that ended without an answer; ``detail`` is that of its ending."""
    reason = detail.get("reason") or "cancelled"
    if "reason" not in detail:
        return Problem(409, "cancelled", "Cancelled", "This generation was cancelled.")
    return Problem(_FAILURES.get(reason, 500), reason.replace("_", "-"), "Failed", str(detail["detail"]))


BEGUN_AGAIN = Problem(
    503,
    "begun-again",
    "Begun again",
    "The answer had to begin anew after some of it was sent. Ask again with the same Idempotency-Key to have it whole.",
)


def field_of(path: str) -> str:
    """Where in the client's body, without what stands above it in Parley's own."""
    for above in ("body.", "query.", "path.", "parameters."):
        path = path.removeprefix(above)
    return path


def in_brackets(path: str) -> str:
    """``messages.0.content`` as ``messages[0].content``."""
    return re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", path)
