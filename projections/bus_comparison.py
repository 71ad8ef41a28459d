"""What the bus still holds beside the record: the same events, with the same content."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from backplane.ports.bus import Log, Message, Position
from backplane.ports.database import Database, Row, Session
from backplane.security.canonical import canonical
from event_schemas.codec import AnyEnvelope, Poison, decode
from projections.batch import READ_MODELS
from projections.catalog import EVENT_LOG
from projections.comparison import Difference
from projections.positions import Reached, reached

_PAGE = 500
_SURELY_KEPT = 0.9
"""Of the retention: while the bus is read, it goes on dropping what is old."""


@dataclass(slots=True)
class BusReport:
    messages: int = 0
    """Of the bus that were compared."""
    lines: int = 0
    """Of the record that the bus must still hold."""
    waiting: int = 0
    """Messages that the projections have not come to yet."""
    unreadable: int = 0
    """Messages that are no events; the projections set them aside as dead letters."""
    differing: int = 0
    differences: list[Difference] = field(default_factory=list)
    """The first few."""


async def compare_with_bus(
    database: Database,
    log: Log,
    topics: Sequence[str],
    retention: timedelta,
    progress: Callable[[float], None],
    most_differences: int = 20,
) -> BusReport:
    """Read all that ``topics`` hold from the earliest on, and look for each event in the record; then look among what
    was read for each line of the record that is younger than ``retention``.

    Compared are ids and bytes; of an event whose content was erased from the record, everything else. ``database``
    connects as the owner. Raises NewerVersion, DatabaseUnavailable, BusError.
    """
    report = BusReport()
    places = [(topic, partition) for topic in topics for partition in range(len(await log.heads(topic)))]
    async with database.system() as session:
        # What comes later is on its way from one to the other.
        start = await reached(session, READ_MODELS)
        await session.execute("CREATE TEMPORARY TABLE on_bus (tenant_id uuid, id uuid) ON COMMIT DROP")
        for done, (topic, partition) in enumerate(places):
            up_to = start.places.get((topic, partition))
            async for page in _pages(log, topic, partition):
                passed = [message for message in page if up_to is not None and message.position <= up_to]
                report.waiting += len(page) - len(passed)
                await _compare(session, passed, report, most_differences)
            progress((done + 1) / (len(places) + 1))
        await _missing(session, start, retention * _SURELY_KEPT, report, most_differences)
    progress(1.0)
    return report


async def _pages(log: Log, topic: str, partition: int) -> AsyncGenerator[Sequence[Message]]:
    after: Position | None = None
    while page := await log.read(topic, partition, after=after, limit=_PAGE):
        yield page
        after = page[-1].position


async def _compare(session: Session, messages: Sequence[Message], report: BusReport, most: int) -> None:
    events: list[tuple[AnyEnvelope, bytes]] = []
    for message in messages:
        try:
            events.append((decode(message.payload), message.payload))
        except Poison:
            report.unreadable += 1
    if not events:
        return
    ids = {"tenants": [event.tenantid for event, _ in events], "ids": [event.id for event, _ in events]}
    recorded = await session.all(
        f"""SELECT tenant_id, id, envelope FROM {READ_MODELS}.event_log
            JOIN unnest(CAST(:tenants AS uuid[]), CAST(:ids AS uuid[])) AS e(tenant_id, id) USING (tenant_id, id)""",  # noqa: S608
        **ids,
    )
    await session.execute(
        "INSERT INTO on_bus SELECT * FROM unnest(CAST(:tenants AS uuid[]), CAST(:ids AS uuid[]))", **ids
    )
    by_id = {(row["tenant_id"], row["id"]): row["envelope"] for row in recorded}
    report.messages += len(events)
    for event, raw in events:
        line = by_id.get((event.tenantid, event.id))
        if line is None:
            _differs(report, most, event.tenantid, event.id, "is on the bus, and the record does not have it")
        elif line != raw and not same_but_cut(line, raw):
            _differs(report, most, event.tenantid, event.id, "is not in the record as it is on the bus")


async def _missing(session: Session, start: Reached, kept: timedelta, report: BusReport, most: int) -> None:
    await session.execute("CREATE INDEX ON on_bus (tenant_id, id)")
    await session.execute("ANALYZE on_bus")
    rows: list[Row] = await session.all(
        f"""SELECT l.tenant_id, l.id, count(*) OVER () AS missing FROM {READ_MODELS}.event_log l {_YOUNG}
              AND NOT EXISTS (SELECT FROM on_bus b WHERE b.tenant_id = l.tenant_id AND b.id = l.id)
            ORDER BY l.tenant_id, l.sequence LIMIT :most""",  # noqa: S608
        most=max(1, most - len(report.differences)),
        **_young(start, kept),
    )
    counted = await session.one(
        f"SELECT count(*) AS lines FROM {READ_MODELS}.event_log l {_YOUNG}",  # noqa: S608
        **_young(start, kept),
    )
    assert counted is not None
    report.lines = counted["lines"]
    for row in rows:
        _differs(report, most, row["tenant_id"], row["id"], "is in the record, and the bus does not have it")
    report.differing += rows[0]["missing"] - len(rows) if rows else 0


_YOUNG = """JOIN unnest(CAST(:tenants AS uuid[]), CAST(:sequences AS bigint[])) AS h(tenant_id, head)
  ON h.tenant_id = l.tenant_id AND l.sequence <= h.head
WHERE l."time" >= now() - CAST(:kept AS interval)"""


def _young(start: Reached, kept: timedelta) -> dict[str, Any]:
    return {"tenants": list(start.heads), "sequences": list(start.heads.values()), "kept": kept}


def _differs(report: BusReport, most: int, tenant_id: UUID, event_id: UUID, what: str) -> None:
    report.differing += 1
    if len(report.differences) < most:
        report.differences.append(Difference(EVENT_LOG, {"tenant_id": str(tenant_id), "id": str(event_id)}, what))


def same_but_cut(line: bytes, raw: bytes) -> bool:
    """Whether ``line`` is ``raw``, but for ciphertext that was cut off with its hash left in its place."""
    return canonical(line, committed=True) == canonical(raw, committed=True)
