"""How far the projections have come on each partition of the bus. Whoever waits for what it published reads this."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from backplane.ports.bus import Message, Position
from backplane.ports.database import Session

Place = tuple[str, int]
"""A topic and a partition."""


class SetBack(Exception):
    """Postgres has not what was acknowledged before the messages at hand: first that is to be read again."""


@dataclass(frozen=True, slots=True)
class Reached:
    """How far the projections had come: no line up to ``heads`` came from behind ``places``."""

    heads: dict[UUID, int]
    """The newest line of each tenant's record."""
    places: dict[Place, Position]
    """The last position of each (topic, partition)."""


def furthest(messages: Iterable[Message]) -> dict[Place, Position]:
    """The last position of each (topic, partition)."""
    places: dict[Place, Position] = {}
    for message in messages:
        place = message.topic, message.partition
        places[place] = max(places.get(place, message.position), message.position)
    return places


async def advance(
    session: Session, places: Mapping[Place, Position], schema: str, least: Mapping[Place, Position] | None = None
) -> None:
    """Move on to ``places``, within the transaction of ``session``. Never backwards: a redelivery changes nothing.

    Raises SetBack where we were not as far as ``least`` says.
    """
    # In one order: two projectors may hand a partition over to each other. What is compared is of before the statement.
    behind = await session.all(
        f"""WITH moved AS (
              INSERT INTO {schema}.positions AS p (topic, partition, ledger, entry)
              SELECT * FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS integer[]),
                                   CAST(:ledgers AS bigint[]), CAST(:entries AS bigint[]))
              ON CONFLICT (topic, partition) DO UPDATE SET ledger = excluded.ledger, entry = excluded.entry
              WHERE (excluded.ledger, excluded.entry) > (p.ledger, p.entry))
            SELECT topic, partition
            FROM unnest(CAST(:least_topics AS text[]), CAST(:least_partitions AS integer[]),
                        CAST(:least_ledgers AS bigint[]), CAST(:least_entries AS bigint[]))
              AS l(topic, partition, ledger, entry)
            LEFT JOIN {schema}.positions p USING (topic, partition)
            WHERE p.topic IS NULL OR (p.ledger, p.entry) < (l.ledger, l.entry)
            ORDER BY topic, partition LIMIT 1""",  # noqa: S608
        **_columns(places),
        **_columns(least or {}, "least_"),
    )
    for row in behind:
        raise SetBack(f"Postgres was set back: {row['topic']}, partition {row['partition']} is read again")


def _columns(places: Mapping[Place, Position], prefix: str = "") -> dict[str, list[Any]]:
    ordered = sorted(places)
    return {
        f"{prefix}topics": [topic for topic, _ in ordered],
        f"{prefix}partitions": [partition for _, partition in ordered],
        f"{prefix}ledgers": [places[place].ledger for place in ordered],
        f"{prefix}entries": [places[place].entry for place in ordered],
    }


async def set_back(session: Session, place: Place, position: Position, schema: str) -> None:
    """Go on from ``position``, which may be before where we are, within the transaction of ``session``."""
    await session.execute(
        f"""UPDATE {schema}.positions SET ledger = :ledger, entry = :entry
            WHERE topic = :topic AND partition = :partition""",  # noqa: S608
        topic=place[0],
        partition=place[1],
        ledger=position.ledger,
        entry=position.entry,
    )


async def reached(session: Session, schema: str) -> Reached:
    """How far they have come by now."""
    # Heads first: they may move on before the places are read.
    heads = await session.all(f"SELECT tenant_id, sequence FROM {schema}.tenant_heads ORDER BY tenant_id")  # noqa: S608
    return Reached({row["tenant_id"]: row["sequence"] for row in heads}, await stored(session, schema))


async def stored(session: Session, schema: str) -> dict[Place, Position]:
    """The last position of each (topic, partition)."""
    places = await session.all(
        f"SELECT topic, partition, ledger, entry FROM {schema}.positions ORDER BY topic, partition"  # noqa: S608
    )
    return {(row["topic"], row["partition"]): Position(row["ledger"], row["entry"]) for row in places}
