"""How far the projections have come on each partition of the bus. Whoever waits for what it published reads this."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from backplane.ports.bus import Message, Position
from backplane.ports.database import Session


class SetBack(Exception):
    """Postgres has not what was acknowledged before the messages at hand: first that is to be read again."""


@dataclass(frozen=True, slots=True)
class Reached:
    """How far the projections had come: no line up to ``heads`` came from behind ``places``."""

    heads: dict[UUID, int]
    """The newest line of each tenant's record."""
    places: dict[tuple[str, int], Position]
    """The last position of each (topic, partition)."""


def furthest(messages: Iterable[Message]) -> dict[tuple[str, int], Position]:
    """The last position of each (topic, partition)."""
    places: dict[tuple[str, int], Position] = {}
    for message in messages:
        place = message.topic, message.partition
        places[place] = max(places.get(place, message.position), message.position)
    return places


async def advance(session: Session, places: dict[tuple[str, int], Position], schema: str) -> None:
    """Move on to ``places``, within the transaction of ``session``. Never backwards: a redelivery changes nothing."""
    # In one order: two projectors may hand a partition over to each other.
    ordered = sorted(places)
    await session.execute(
        f"""INSERT INTO {schema}.positions AS p (topic, partition, ledger, entry)
            SELECT * FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS integer[]),
                                 CAST(:ledgers AS bigint[]), CAST(:entries AS bigint[]))
            ON CONFLICT (topic, partition) DO UPDATE SET ledger = excluded.ledger, entry = excluded.entry
            WHERE (excluded.ledger, excluded.entry) > (p.ledger, p.entry)""",  # noqa: S608
        topics=[topic for topic, _ in ordered],
        partitions=[partition for _, partition in ordered],
        ledgers=[places[place].ledger for place in ordered],
        entries=[places[place].entry for place in ordered],
    )


async def set_back(session: Session, place: tuple[str, int], position: Position, schema: str) -> None:
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


async def stored(session: Session, schema: str) -> dict[tuple[str, int], Position]:
    """The last position of each (topic, partition)."""
    places = await session.all(
        f"SELECT topic, partition, ledger, entry FROM {schema}.positions ORDER BY topic, partition"  # noqa: S608
    )
    return {(row["topic"], row["partition"]): Position(row["ledger"], row["entry"]) for row in places}
