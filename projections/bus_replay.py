"""Read models beside what the bus still holds: what is folded comes from the bus, in the order of the record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC
from typing import NamedTuple
from uuid import UUID

from backplane.ports.bus import Log, Message, Position
from backplane.ports.database import Database
from event_schemas.codec import AnyEnvelope, Poison, decode
from projections.batch import READ_MODELS
from projections.catalog import PROJECTIONS, needed_for
from projections.positions import Reached, reached
from projections.rebuild import Progress, Replay, Report, ShadowTables, compare, refuse_pruned
from projections.table import Projection

_PAGE = 500


class NotTheSameEvents(Exception):
    """The bus and the record do not tell of the same events, so nothing can be said of what both led to."""


async def compare_from_bus(
    database: Database,
    log: Log,
    shadow_of: Callable[[str], AbstractAsyncContextManager[ShadowTables]],
    models: Sequence[str],
    *,
    progress: Progress,
    most_differences: int = 20,
) -> list[Report]:
    """Fold all that the projections have read, as the bus holds it, into fresh tables, and compare the live ones of
    ``models`` with these, as of one moment. The bus is read once.

    ``database`` and ``shadow_of`` are as for ``rebuild``. Raises LookupError (no such model), NotTheSameEvents,
    RecordIsPruned, DatabaseUnavailable, BusError, and NewerVersion where the bus holds what only a newer release can
    read.
    """
    needed = {projection.name for model in models for projection in needed_for(model)}
    projections = [projection for projection in PROJECTIONS if projection.name in needed]
    await refuse_pruned(database)
    async with shadow_of("from_bus") as shadow:
        await shadow.create([projection.name for projection in projections])
        replay = BusReplay(database, log, projections, shadow.schema)
        await replay.begin()
        tables = [projection.table for projection in projections if projection.name in models]
        return await compare(database, shadow, replay, tables, "the bus", progress, most_differences)


class _Gap(NamedTuple):
    events: int
    first: str


class BusReplay(Replay):
    """Folds what the bus holds, each event in the place that the record gave it.

    Partitions are read one after the other, and what came first on two of them only the record knows. So events are
    laid down beside the fresh tables, by their lines' numbers, and are replayed from there as from the record.
    """

    def __init__(self, database: Database, log: Log, projections: Sequence[Projection], schema: str) -> None:
        self._lines = f"{schema}.on_bus"
        super().__init__(database, projections, schema, self._lines)
        self._log = log
        self._passed: dict[tuple[str, int], Position] = {}
        self._unrecorded: _Gap | None = None

    async def begin(self) -> None:
        """Make the table that events are laid down in; it goes with the schema. Raises DatabaseUnavailable."""
        async with self._database.system() as session:
            await session.execute(
                f"""CREATE UNLOGGED TABLE {self._lines} (
                      tenant_id uuid, sequence bigint, type text NOT NULL, envelope bytea NOT NULL,
                      PRIMARY KEY (tenant_id, sequence))"""
            )

    async def catch_up(self, progress: Progress) -> int:
        """As the record's. Raises also NotTheSameEvents, BusError, and NewerVersion."""
        async with self._database.system() as session:
            now = await reached(session, READ_MODELS)
        await self._lay_down(now.places, lambda share: progress(share / 2))
        await self._refuse_gaps(now)
        return await self._go_on(now.heads, lambda share: progress((1 + share) / 2))

    async def _lay_down(self, places: Mapping[tuple[str, int], Position], progress: Progress) -> None:
        """What the projections passed and we have not seen."""
        for done, (place, up_to) in enumerate(places.items()):
            after = self._passed.get(place)
            while (after is None or after < up_to) and (page := await self._log.read(*place, after=after, limit=_PAGE)):
                after = page[-1].position
                await self._store([message for message in page if message.position <= up_to])
            self._passed[place] = up_to
            progress((done + 1) / len(places))

    async def _store(self, messages: Sequence[Message]) -> None:
        events = [(event, message.payload) for message in messages if (event := self._wanted(message)) is not None]
        ids = [(event.tenantid, event.id) for event, _ in events]
        async with self._database.system() as session:
            await session.execute("SET LOCAL synchronous_commit = off")
            lines = await session.all(
                f"""SELECT l.tenant_id, l.id, l.sequence FROM {READ_MODELS}.event_log l
                    JOIN unnest(CAST(:tenants AS uuid[]), CAST(:ids AS uuid[])) AS e(tenant_id, id)
                      USING (tenant_id, id)""",  # noqa: S608
                tenants=[tenant_id for tenant_id, _ in ids],
                ids=[event_id for _, event_id in ids],
            )
            sequences = {(line["tenant_id"], line["id"]): line["sequence"] for line in lines}
            for unrecorded in (each for each in ids if each not in sequences):
                self._count_unrecorded(*unrecorded)
            recorded = [(sequences[each], *event) for each, event in zip(ids, events, strict=True) if each in sequences]
            # Delivery is at least once, and so is publishing.
            await session.execute(
                f"""INSERT INTO {self._lines} (tenant_id, sequence, type, envelope)
                    SELECT * FROM unnest(CAST(:tenants AS uuid[]), CAST(:sequences AS bigint[]),
                                         CAST(:types AS text[]), CAST(:envelopes AS bytea[]))
                    ON CONFLICT DO NOTHING""",  # noqa: S608
                tenants=[event.tenantid for _, event, _ in recorded],
                sequences=[sequence for sequence, _, _ in recorded],
                types=[event.type for _, event, _ in recorded],
                envelopes=[raw for _, _, raw in recorded],
            )

    def _wanted(self, message: Message) -> AnyEnvelope | None:
        try:
            event = decode(message.payload)
        except Poison:
            return None  # no line of the record came of it
        return event if type(event.data) in self._needed else None

    def _count_unrecorded(self, tenant_id: UUID, event_id: UUID) -> None:
        events, first = self._unrecorded or _Gap(0, f"{event_id} of tenant {tenant_id}")
        self._unrecorded = _Gap(events + 1, first)

    async def _refuse_gaps(self, now: Reached) -> None:
        missing = await self._missing(now.heads)
        if missing is not None:
            await refuse_pruned(self._database)
            raise NotTheSameEvents(
                f"the bus lacks {missing.events} lines of the record that read models come from, the first is"
                f" {missing.first}: it keeps messages for bus.retention_hours only. From the rest alone nobody can tell"
                " what read models should hold, so nothing was compared. What the bus still holds is compared with the"
                " record by: parley record compare; read models with the record by: parley rebuild all --check"
            )
        if self._unrecorded is not None:
            await refuse_pruned(self._database)
            raise NotTheSameEvents(
                f"the record lacks the events of {self._unrecorded.events} messages that the projections have read from"
                f" the bus, the first is {self._unrecorded.first}; in what order they came is not known, so nothing was"
                " compared. All of them are named by: parley record compare"
            )

    async def _missing(self, heads: Mapping[UUID, int]) -> _Gap | None:
        behind = {tenant_id: to for tenant_id, to in heads.items() if to > self._after.get(tenant_id, 0)}
        async with self._database.system() as session:
            first = await session.one(
                f"""SELECT l.tenant_id, l.sequence, l.type, l."time", count(*) OVER () AS missing
                    FROM {READ_MODELS}.event_log l
                    JOIN unnest(CAST(:tenants AS uuid[]), CAST(:afters AS bigint[]), CAST(:tos AS bigint[]))
                      AS h(tenant_id, after, upto)
                      ON h.tenant_id = l.tenant_id AND l.sequence > h.after AND l.sequence <= h.upto
                    WHERE l.type <> ALL(CAST(:unneeded AS text[])) AND NOT EXISTS (
                      SELECT FROM {self._lines} b WHERE b.tenant_id = l.tenant_id AND b.sequence = l.sequence)
                    ORDER BY l.tenant_id, l.sequence LIMIT 1""",  # noqa: S608
                tenants=list(behind),
                afters=[self._after.get(tenant_id, 0) for tenant_id in behind],
                tos=list(behind.values()),
                unneeded=self._unneeded,
            )
        if first is None:
            return None
        what = f"{first['type']}, {first['time'].astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        return _Gap(first["missing"], f"line {first['sequence']} of tenant {first['tenant_id']} ({what})")
