"""After the bus or Postgres was lost: what was promised and has not ended is on its way again.

The record holds each command, sealed as it came. To publish it once more changes nothing where it runs, waits or has
ended, since the claim decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

from backplane.ports.bus import Publisher, UnknownTopic
from backplane.ports.database import Database, Row
from event_schemas.codec import decode
from event_schemas.generation import SubmitPrompt
from event_schemas.topics import INGESTIONS, commands

SKEW_S = 10
"""A key's age is by Postgres' clock, an erasure's by another: closer than this, nobody knows which came first. Not
more, since what is erased is often a slip that was just written."""

_PAGE = 500
_FIRST = UUID(int=0)
_ENDED = "('completed', 'failed', 'cancelled')"


@dataclass(frozen=True, slots=True)
class Recovered:
    closed: int
    """Claims that were open, or not there any more, though the record says how the generation ended."""
    erased: int
    """Data keys that were deleted once, and came back with the backup."""
    unsure: list[tuple[UUID, UUID]]
    """The tenant and the conversation of data keys that were left, since they are about as old as an erasure."""
    prompts: int
    """Commands that were published again."""
    documents: int
    """The same, of documents."""
    gone: dict[str, int]
    """How many commands could not be published, by their pools, of which the bus has no topic."""


async def recover(database: Database, publisher: Publisher, ended_hours: int) -> Recovered:
    """Let claims and data keys be as the record says, then publish again what has not ended, prompts and documents.

    ``database`` connects as the owner; projections must have caught up. Claims that are missing altogether are made for
    what ended within ``ended_hours``, in which its command may come once more. Repeatable, and harmless while all runs.
    Raises DatabaseUnavailable, BusError, and NewerVersion.
    """
    async with database.system() as session:
        closed = await session.execute(_CLOSE_OPEN) + await session.execute(_MAKE_MISSING, hours=ended_hours)
        erased = await session.execute(_ERASE_AGAIN, seconds=SKEW_S)
        unsure = await session.all(_UNSURE, seconds=SKEW_S)
    prompts = documents = 0
    gone: Counter[str] = Counter()
    async for row in _pages(database, _UNENDED_PROMPTS):
        prompt = decode(row["command"]).data
        assert isinstance(prompt, SubmitPrompt)
        if prompt.pool not in gone:
            try:
                await publisher.publish(commands(prompt.pool), row["command"], key=str(row["tenant_id"]))
                prompts += 1
                continue
            except UnknownTopic:
                pass  # nobody takes that pool's prompts any more; those of the others wait
        gone[prompt.pool] += 1
    async for row in _pages(database, _UNENDED_DOCUMENTS):
        await publisher.publish(INGESTIONS, row["command"], key=str(row["tenant_id"]))
        documents += 1
    left = [(row["tenant_id"], row["conversation_id"]) for row in unsure]
    return Recovered(closed, erased, left, prompts, documents, dict(gone))


async def _pages(database: Database, sql: str) -> AsyncIterator[Row]:
    tenant_id = after = _FIRST
    while rows := await database.at_once(sql, tenant_id=tenant_id, after=after, page=_PAGE):
        for row in rows:
            yield row
        tenant_id, after = rows[-1]["tenant_id"], rows[-1]["id"]


_HOW_IT_ENDED = """CROSS JOIN LATERAL (
  SELECT l.envelope FROM read_models.event_log l
  WHERE l.tenant_id = g.tenant_id AND l.subject = 'generation:' || g.id
    AND starts_with(l.type, 'generation.' || g.status || '.')
  ORDER BY l.sequence LIMIT 1) l"""

# Else the next prompt of its conversation would wait for it for ever.
_CLOSE_OPEN = f"""
UPDATE work.claims c SET terminal = l.envelope, ended_at = g.ended_at, lease_until = NULL,
  attempt = greatest(c.attempt, g.attempt)
FROM read_models.generations g {_HOW_IT_ENDED}
WHERE c.terminal IS NULL AND g.tenant_id = c.tenant_id AND g.id = c.generation_id AND g.status IN {_ENDED}"""  # noqa: S608

# Else a delivery that comes once more would run it once more.
_MAKE_MISSING = f"""
INSERT INTO work.claims (generation_id, tenant_id, conversation_id, pool, attempt, message_ids, terminal, ended_at)
SELECT g.id, g.tenant_id, g.conversation_id, coalesce(g.served_pool, g.pool, ''), g.attempt, ARRAY[g.id], l.envelope,
  g.ended_at
FROM read_models.generations g {_HOW_IT_ENDED}
WHERE g.status IN {_ENDED} AND g.ended_at > now() - make_interval(hours => :hours)
ON CONFLICT DO NOTHING"""  # noqa: S608

_ERASURES = """SELECT FROM read_models.event_log l
    WHERE l.tenant_id = k.tenant_id AND l.subject = 'conversation:' || k.conversation_id
      AND starts_with(l.type, 'content.erased.')"""

# A conversation that goes on after it was erased has a younger key. A prompt's own key dies with its end.
_ERASE_AGAIN = f"""
DELETE FROM control.data_keys k
WHERE EXISTS ({_ERASURES} AND k.created_at < l."time" - make_interval(secs => :seconds))
  OR k.generation_id IS NOT NULL AND EXISTS (
    SELECT FROM read_models.generations g
    WHERE g.tenant_id = k.tenant_id AND g.id = k.generation_id AND g.status IN {_ENDED})"""  # noqa: S608

_UNSURE = f"""
SELECT DISTINCT k.tenant_id, k.conversation_id FROM control.data_keys k
WHERE EXISTS ({_ERASURES} AND k.created_at <= l."time" + make_interval(secs => :seconds))
ORDER BY k.tenant_id, k.conversation_id"""  # noqa: S608

# As it was handed on last, where the claim knows.
_UNENDED_PROMPTS = f"""
SELECT g.tenant_id, g.id, coalesce(c.command, l.envelope) AS command
FROM read_models.generations g
LEFT JOIN work.claims c ON c.generation_id = g.id
CROSS JOIN LATERAL (
  SELECT l.envelope FROM read_models.event_log l
  WHERE l.tenant_id = g.tenant_id AND l.subject = 'generation:' || g.id AND starts_with(l.type, 'prompt.submit.')
  ORDER BY l.sequence DESC LIMIT 1) l
WHERE g.status NOT IN {_ENDED} AND (g.tenant_id, g.id) > (:tenant_id, :after)
ORDER BY g.tenant_id, g.id LIMIT :page"""  # noqa: S608

_UNENDED_DOCUMENTS = """
SELECT d.tenant_id, d.id, l.envelope AS command
FROM read_models.documents d
CROSS JOIN LATERAL (
  SELECT l.envelope FROM read_models.event_log l
  WHERE l.tenant_id = d.tenant_id AND l.subject = 'document:' || d.id AND starts_with(l.type, 'document.ingest.')
  ORDER BY l.sequence DESC LIMIT 1) l
WHERE d.status NOT IN ('ready', 'failed') AND NOT d.deleted AND (d.tenant_id, d.id) > (:tenant_id, :after)
ORDER BY d.tenant_id, d.id LIMIT :page"""
