"""Replays the record into fresh tables, then swaps them in, or only compares them with what is live."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol
from uuid import UUID

from backplane.ports.database import Database
from event_schemas.codec import AnyEnvelope, decode
from event_schemas.registry import COMMANDS, EVENTS, split
from projections import checkpoints
from projections.batch import PROJECTING, READ_MODELS
from projections.catalog import EVENT_LOG, needed_for
from projections.comparison import Difference, compared
from projections.event_log import MOST_BYTES, PAGE
from projections.positions import reached
from projections.reading_ahead import pages
from projections.table import Projection, Table
from projections.verify import verify
from projections.writer import Writer

_CLOSE_ENOUGH = 2 * PAGE
_CATCHING_UP = 5
SWAP_TRIES = 20

Progress = Callable[[float], None]
"""Told the share that is done, 0 to 1."""


class ShadowTables(Protocol):
    """Fresh tables beside the live ones, in a schema of their own that goes when the rebuild ends."""

    schema: str

    async def create(self, models: Sequence[str]) -> None: ...

    async def analyze(self, table: str) -> None: ...

    def holding(self, lock: int) -> AbstractAsyncContextManager[None]:
        """While it lasts, nobody else holds the advisory lock ``lock``, shared or not."""

    async def swap(self, table: str) -> bool:
        """Within ``holding``: put the fresh table in the live one's place when that block ends.

        False where a long read keeps the live table busy; then nothing was changed.
        """


class RecordIsNotRebuilt(Exception):
    """The event log is what the others are rebuilt from. It can be checked."""


class RecordIsPruned(Exception):
    """The record no longer tells all that the read models hold, so they can be neither rebuilt from it nor compared."""


class StillBusy(Exception):
    """Reads that don't end kept the live table busy, so the rebuilt one was not swapped in. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a rebuild or a check found."""

    model: str
    lines: int
    """Lines of the record that were read."""
    swapped: bool
    differences: tuple[Difference, ...]
    """Of a check; the first few. Empty: live equals rebuilt."""
    rows: int = 0
    """Of a check of a read model: those of the live table."""
    erased: int = 0
    """Of ``rows``, those that are marked as erased, or whose ciphertext was cut off."""


async def rebuild(
    database: Database,
    shadow_of: Callable[[str], AbstractAsyncContextManager[ShadowTables]],
    model: str,
    *,
    check: bool,
    progress: Progress,
    most_differences: int = 20,
) -> Report:
    """Rebuild a read model from the record while it goes on being read and written.

    ``database`` connects as the owner of the tables, with at least 3 connections; ``shadow_of(model)`` makes the fresh
    tables. With ``check`` nothing is swapped: what is live is compared with what was rebuilt, as of one moment.

    Raises LookupError (no such model), RecordIsNotRebuilt, RecordIsPruned, StillBusy, DatabaseUnavailable,
    and NewerVersion where the record holds what only a newer release can read.
    """
    if model == EVENT_LOG:
        if not check:
            raise RecordIsNotRebuilt("event_log is the record itself; it can be checked, not rebuilt")
        lines, wrong = await verify(database, READ_MODELS, progress)
        return Report(model, lines, False, tuple(wrong[:most_differences]))
    projections = needed_for(model)
    table = projections[-1].table
    await refuse_pruned(database)
    async with shadow_of(model) as shadow:
        await shadow.create([projection.name for projection in projections])
        replay = Replay(database, projections, shadow.schema)
        if check:
            (report,) = await compare(database, shadow, replay, [table], "the record", progress, most_differences)
            return report
        await replay.come_close(progress)
        await shadow.analyze(table.name)
        for _ in range(SWAP_TRIES):
            async with shadow.holding(PROJECTING):
                await replay.catch_up(progress)
                await refuse_pruned(database)
                if await shadow.swap(table.name):
                    return Report(model, replay.lines, True, ())
            await asyncio.sleep(0)
        raise StillBusy(f"{READ_MODELS}.{table.name} is read without a pause; nothing was changed, try again later")


async def compare(
    database: Database,
    shadow: ShadowTables,
    replay: Replay,
    tables: Sequence[Table],
    source: str,
    progress: Progress,
    most_differences: int,
) -> list[Report]:
    """Replay into ``shadow`` all that ``source`` tells, and compare the live ``tables`` with that, as of one moment.

    Raises what ``replay`` raises, RecordIsPruned and DatabaseUnavailable.
    """
    await replay.come_close(progress)
    async with database.system() as session:
        # The snapshot is taken while the projector is held off, and outlives that.
        await session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        async with shadow.holding(PROJECTING):
            await replay.catch_up(progress)
            await session.one("SELECT 1 AS now")
            await refuse_pruned(database)
        reports = []
        for table in tables:
            found = await compared(session, table, READ_MODELS, shadow.schema, source, most_differences)
            reports.append(Report(table.name, replay.lines, False, found.differences, found.rows, found.erased))
    return reports


async def refuse_pruned(database: Database) -> None:
    """Raises RecordIsPruned where it is, DatabaseUnavailable."""
    async with database.system() as session:
        pruned = await checkpoints.beginnings(session, READ_MODELS)
    if pruned:
        tenant_id, last = next(iter(pruned.items()))
        raise RecordIsPruned(
            f"no read model can be replayed: the record of {len(pruned)} tenants was pruned (record.keep_days), that of"
            f" {tenant_id} up to line {last.sequence}, and read models hold what those lines said; nothing was changed."
            " What is left of the record can be verified: parley rebuild event_log --check"
        )


class _Page(NamedTuple):
    """The next lines of one tenant, up to ``last``, without what no fold wants."""

    last: int
    envelopes: list[AnyEnvelope]


class Replay:
    """Folds the record into fresh tables, tenant by tenant, and remembers how far it came."""

    def __init__(
        self,
        database: Database,
        projections: Sequence[Projection],
        schema: str,
        lines: str = f"{READ_MODELS}.event_log",
    ) -> None:
        """``schema`` has the fresh tables; ``lines`` is what is read, a table with the columns of the record."""
        self._database = database
        self._writer = Writer(projections, schema)
        self._page = _PAGE.format(lines=lines)
        self._needed = frozenset[object]().union(*(projection.handles for projection in projections))
        self._unneeded = _all_but(self._needed)
        self._after: dict[UUID, int] = {}
        self.lines = 0
        """Lines of the record that were passed so far."""

    async def come_close(self, progress: Progress) -> None:
        """Catch up until little was left to do, so that the rest is done in a moment."""
        for _ in range(_CATCHING_UP):
            if await self.catch_up(progress) < _CLOSE_ENOUGH:
                return

    async def catch_up(self, progress: Progress) -> int:
        """Replay what the record holds at this moment and we have not seen; returns how many lines that was."""
        async with self._database.system() as session:
            heads = (await reached(session, READ_MODELS)).heads
        return await self._go_on(heads, progress)

    async def _go_on(self, heads: Mapping[UUID, int], progress: Progress) -> int:
        behind = {tenant: to for tenant, to in heads.items() if to > self._after.get(tenant, 0)}
        total: int = sum(to - self._after.get(tenant, 0) for tenant, to in behind.items())
        done = 0
        for tenant_id, to in behind.items():
            after = self._after.get(tenant_id, 0)
            async with pages(partial(self._read, tenant_id, to), after, to) as ahead:
                async for page in ahead:
                    await self._apply(page)
                    done += page.last - after
                    after = self._after[tenant_id] = page.last
                    progress(done / total)
        self.lines += total
        return total

    async def _read(self, tenant_id: UUID, to: int, after: int) -> _Page:
        last = min(after + PAGE, to)
        async with self._database.system() as session:
            lines = await session.all(
                self._page, tenant_id=tenant_id, after=after, to=last, unneeded=self._unneeded, most_bytes=MOST_BYTES
            )
        if lines and lines[-1]["cut"]:
            last = lines[-1]["sequence"]
        return _Page(last, [decode(line["envelope"]) for line in lines])

    async def _apply(self, page: _Page) -> None:
        async with self._database.system() as session:
            # A rebuild that is lost is begun anew, so it need not wait for the disk; the swap's commit does.
            await session.execute("SET LOCAL synchronous_commit = off")
            await self._writer.apply(session, page.envelopes)


def _all_but(needed: Collection[object]) -> list[str]:
    # Types we know and that no fold wants; a type we don't know is read, so that decoding it fails loudly.
    names = [split(payload.wire_name) for payload in (*COMMANDS, *EVENTS) if payload not in needed]
    return [f"{base}.v{version}" for base, newest in names for version in range(1, newest + 1)]


# One line is always read, however large it is.
_PAGE = """
SELECT sequence, envelope, next IS NOT NULL AS cut FROM (
  SELECT sequence, envelope, sum(octet_length(envelope)) OVER wide AS bytes, row_number() OVER wide AS place,
         lead(octet_length(envelope)) OVER wide AS next
  FROM {lines}
  WHERE tenant_id = :tenant_id AND sequence > :after AND sequence <= :to AND type <> ALL(CAST(:unneeded AS text[]))
  WINDOW wide AS (ORDER BY sequence)
) lines
WHERE place = 1 OR bytes <= :most_bytes
ORDER BY sequence
"""
