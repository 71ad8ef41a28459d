"""What a client is told of limits: headers on every answer to a prompt, and a problem where one is in the way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from backplane.ports.budget import NANO, Exceeded, Kind, Standing
from backplane.web.problems import Problem

_HEADERS: dict[Kind, str] = {"requests_per_minute": "requests", "tokens_per_minute": "tokens"}

_WORDS: dict[Kind, str] = {
    "requests_per_minute": "requests a minute",
    "tokens_per_minute": "tokens a minute",
    "concurrent": "generations at a time",
    "usd_per_day": "US dollars a day",
    "usd_per_month": "US dollars a month",
}

RATE_HEADERS: dict[str, Any] = {
    f"x-ratelimit-{part}-{what}": {"description": text.format(what), "schema": {"type": "string"}}
    for what in _HEADERS.values()
    for part, text in (
        ("limit", "{} a minute that the tightest limit allows; not there where none is set"),
        ("remaining", "{} that are left of it"),
        ("reset", "when all of it is left again, such as `42s`"),
    )
}
"""For the OpenAPI document."""


def headers(standings: Sequence[Standing]) -> dict[str, str]:
    """``x-ratelimit-…`` of the limits that have least left."""
    found: dict[str, str] = {}
    for kind, name in _HEADERS.items():
        of_kind = [one for one in standings if one.kind == kind]
        if of_kind:
            tightest = min(of_kind, key=lambda one: one.left)
            found[f"x-ratelimit-limit-{name}"] = str(tightest.limit)
            found[f"x-ratelimit-remaining-{name}"] = str(tightest.left)
            found[f"x-ratelimit-reset-{name}"] = f"{math.ceil(tightest.resets_s)}s"
    return found


def problem(exceeded: Exceeded) -> Problem:
    """A 429 that says which limit and when to come again; a 422 where coming again cannot help."""
    by = exceeded.by
    whose = f"{by.scope.dimension} {by.scope.subject_id}".strip()
    about: dict[str, Any] = {
        "dimension": by.scope.dimension,
        "subject": by.scope.subject_id,
        "kind": by.kind,
        "limit": shown(by.kind, by.limit),
        "used": shown(by.kind, by.used),
    }
    limit = f"The limit of the {whose} is {shown(by.kind, by.limit)} {_WORDS[by.kind]}"
    rates = headers(exceeded.standings)
    if exceeded.wait_s is None:
        detail = f"{limit}, and this prompt alone takes more. Ask for less, such as by a smaller `max_tokens`."
        return Problem(422, "larger-than-limit", "Larger than a limit", detail, headers=rates, **about)
    wait_s = max(1, math.ceil(exceeded.wait_s))
    detail = f"{limit}, and {shown(by.kind, by.used)} are used or reserved. Try again in {wait_s} s."
    kind = "budget-exceeded" if by.kind.startswith("usd") else "rate-limit-exceeded"
    title = "Budget exceeded" if by.kind.startswith("usd") else "Rate limit exceeded"
    return Problem(429, kind, title, detail, headers=rates | {"Retry-After": str(wait_s)}, **about)


def shown(kind: Kind, count: int) -> int | str:
    """Money as text in US dollars, everything else as it is."""
    return f"{Decimal(count) / NANO:f}" if kind.startswith("usd") else count
