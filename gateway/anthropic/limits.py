"""How limits stand, in Anthropic's headers: https://platform.claude.com/docs/en/api/rate-limits#response-headers"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

_OURS = "x-ratelimit-"

HEADERS: dict[str, Any] = {
    f"anthropic-ratelimit-{what}-{part}": {"description": text.format(what), "schema": {"type": "string"}}
    for what in ("requests", "tokens")
    for part, text in (
        ("limit", "{} a minute that the tightest limit allows; not there where none is set"),
        ("remaining", "{} that are left of it"),
        ("reset", "when all of it is left again, in RFC 3339"),
    )
}
"""For the OpenAPI document."""


def in_their_words(headers: Mapping[str, str], now: datetime | None = None) -> dict[str, str]:
    """``headers`` of an answer of Parley's with Anthropic's names for limits."""
    now = now or datetime.now(UTC)
    return dict(
        _theirs(name, value, now) if name.startswith(_OURS) else (name, value) for name, value in headers.items()
    )


def _theirs(name: str, value: str, now: datetime) -> tuple[str, str]:
    part, _, what = name.removeprefix(_OURS).partition("-")
    if part == "reset":
        value = (now + timedelta(seconds=int(value.removesuffix("s")))).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"anthropic-ratelimit-{what}-{part}", value
