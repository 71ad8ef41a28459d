"""What attempts used: summed, or one by one; as rows, or as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncGenerator, Iterable, Sequence
from datetime import datetime
from decimal import Decimal

from backplane.ports.database import Row
from backplane.security.principal import Principal
from query_api import sql
from query_api.service import QueryPorts

_PAGE = 500

_SUMS = (
    "generations",
    "attempts",
    "estimated_attempts",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost_usd",
    "attempts_of_unknown_cost",
    "embeddings",
)
ATTEMPT = (
    "at",
    "generation_id",
    "attempt",
    "user_id",
    "key_id",
    "model",
    "pool",
    "backend",
    "served_model",
    "paid_by",
    "persona",
    "source",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost_usd",
    "inputs",
)
"""Columns of the export of single attempts."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


async def groups(ports: QueryPorts, principal: Principal, chosen: sql.UsageFilter, group_by: sql.Grouping) -> list[Row]:
    """Raises DatabaseUnavailable."""
    async with ports.database.tenant(principal.tenant_id) as session:
        return await sql.usage(session, sql.Eyes.of(principal), chosen, group_by)


def groups_as_csv(rows: Iterable[Row], group_by: sql.Grouping) -> bytes:
    """A head, and a line for each group."""
    return _csv([(group_by, *_SUMS), *((row["group"], *(row[name] for name in _SUMS)) for row in rows)])


async def attempts_as_csv(
    ports: QueryPorts, principal: Principal, chosen: sql.UsageFilter
) -> AsyncGenerator[bytes, None]:
    """A head, and a line for each attempt, some hundred at a time. Raises DatabaseUnavailable, also in the middle."""
    yield _csv([ATTEMPT])
    last: Row | None = None
    while True:
        async with ports.database.tenant(principal.tenant_id) as session:
            rows = await sql.attempts(session, sql.Eyes.of(principal), chosen, after=last, limit=_PAGE)
        if rows:
            yield _csv([tuple(row[name] for name in ATTEMPT) for row in rows])
            last = rows[-1]
        if len(rows) < _PAGE:
            return


def _csv(lines: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([_cell(value) for value in line] for line in lines)
    return text.getvalue().encode()


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case Decimal():
            return f"{value:f}"
        case datetime():
            return value.isoformat()
        case str():
            # A spreadsheet runs what looks like a formula (OWASP, "CSV Injection").
            return f"'{value}" if value.startswith(_FORMULA) else value
        case _:
            return str(value)
