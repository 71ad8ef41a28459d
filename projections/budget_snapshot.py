"""What the read models say of limits at one moment: used, open, and up to which line of each record."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from backplane.ports.budget import Counted, Opened, Reservation, Scope, scopes
from backplane.ports.database import Database, Row, Session

_PART = 1000

_COUNTED = """
WITH used AS (
  SELECT tenant_id, user_id, key_id, model, persona,
         count(inputs) FILTER (WHERE at > now() - interval '61 seconds') AS requests,
         sum(input_tokens + output_tokens) FILTER (WHERE at > now() - interval '61 seconds') AS tokens,
         sum(ceil(cost_usd * 1000000000)) FILTER (WHERE at >= date_trunc('day', now(), 'UTC')) AS day,
         sum(ceil(cost_usd * 1000000000)) FILTER (WHERE at >= date_trunc('month', now(), 'UTC')) AS month
  FROM read_models.usage WHERE at >= date_trunc('month', now(), 'UTC') OR at > now() - interval '61 seconds'
  GROUP BY tenant_id, user_id, key_id, model, persona),
asked AS (
  SELECT tenant_id, user_id, key_id, asked_model AS model, persona, count(*) AS requests,
         sum(reserved_tokens) FILTER (WHERE ended_at IS NULL) AS tokens, 0 AS day, 0 AS month
  FROM read_models.generations
  WHERE created_at > now() - interval '61 seconds' AND (ended_at IS NULL OR ended_at > now() - interval '61 seconds')
    AND asked_model IS NOT NULL
  GROUP BY tenant_id, user_id, key_id, asked_model, persona)
SELECT tenant_id, user_id, key_id, model, persona, sum(requests)::bigint AS requests,
       coalesce(sum(tokens), 0)::bigint AS tokens, coalesce(sum(day), 0)::bigint AS day,
       coalesce(sum(month), 0)::bigint AS month
FROM (SELECT * FROM used UNION ALL SELECT * FROM asked) AS counted
GROUP BY tenant_id, user_id, key_id, model, persona
"""

_OPENED = """
SELECT id, tenant_id, user_id, key_id, coalesce(asked_model, model) AS model, persona,
       coalesce(reserved_tokens, 0) AS tokens, coalesce(reserved_nano_usd, 0) AS nano
FROM read_models.generations WHERE ended_at IS NULL AND created_at IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class Part:
    counted: Sequence[Counted] = ()
    opened: Sequence[Opened] = ()
    cursors: Sequence[tuple[UUID, int]] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    day: date
    """On which it was taken, UTC."""
    counted: Sequence[Counted]
    opened: Sequence[Opened]
    cursors: Sequence[tuple[UUID, int]]

    def parts(self) -> Iterator[Part]:
        """All of it, in parts that a server can take at a time."""
        for begin in range(0, len(self.counted), _PART):
            yield Part(counted=self.counted[begin : begin + _PART])
        for begin in range(0, len(self.opened), _PART):
            yield Part(opened=self.opened[begin : begin + _PART])
        for begin in range(0, len(self.cursors), _PART):
            yield Part(cursors=self.cursors[begin : begin + _PART])


async def taken(database: Database) -> Snapshot:
    """Raises DatabaseUnavailable."""
    async with database.system() as session:
        await session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        day = await session.one("SELECT (now() AT TIME ZONE 'UTC')::date AS day")
        assert day is not None
        heads = await session.all("SELECT tenant_id, sequence FROM read_models.tenant_heads")
        return Snapshot(
            day["day"],
            await _counted(session),
            [_opened(row) for row in await session.all(_OPENED)],
            [(row["tenant_id"], row["sequence"]) for row in heads],
        )


async def _counted(session: Session) -> list[Counted]:
    sums: defaultdict[Scope, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for row in await session.all(_COUNTED):
        for scope in scopes(row["tenant_id"], row["user_id"], row["key_id"], row["model"], row["persona"]):
            for place, name in enumerate(("requests", "tokens", "day", "month")):
                sums[scope][place] += row[name]
    return [Counted(scope, *numbers) for scope, numbers in sums.items()]


def _opened(row: Row) -> Opened:
    return Opened(
        Reservation(row["id"], row["tenant_id"], row["tokens"], row["nano"]),
        scopes(row["tenant_id"], row["user_id"], row["key_id"], row["model"], row["persona"]),
    )
