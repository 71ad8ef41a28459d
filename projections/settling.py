"""Keeps the counters of limits up with the record, and rebuilds them from the read models where they were lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from uuid import UUID

from prometheus_client import Histogram

from backplane.ports.budget import BudgetUnavailable, CountersLost, Opened, Overdue, Settlement, Spent
from backplane.ports.bus import BusError
from backplane.ports.database import Database, DatabaseUnavailable, Session
from backplane.ports.freshness import Freshness
from event_schemas.codec import decode
from projections import budget_snapshot
from projections.backoff import Backoff
from projections.settlement import TYPES, change

logger = logging.getLogger(__name__)

_POLL_S = 1.0
_FRESH_S = 5.0
_LINES = 2000
"""Lines of one tenant's record that are settled at a time."""
_AT_ONCE = 1000
_REBUILDING = 0x627564676574  # "budget", as an advisory lock

_MEASURED = Histogram(
    "parley_settled_to_reserved_tokens",
    "Tokens that a generation used, as a share of those that were reserved for it",
    buckets=(0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0),
)


class Settling:
    """One of these a process; any number of processes. Who is late finds the lines settled."""

    def __init__(self, settlement: Settlement, database: Database, freshness: Freshness, publish_s: float) -> None:
        """``publish_s`` is how long a prompt may take from its reservation to the bus, wherever it is admitted."""
        self._settlement = settlement
        self._database = database
        self._freshness = freshness
        self._publish_s = publish_s
        self._settled: dict[UUID, int] = {}
        self._behind: set[UUID] = set()
        self._wake = asyncio.Event()
        self._on_counting: Callable[[], None] | None = None
        self._counts = False

    def on_counting(self, told: Callable[[], None]) -> None:
        """``told`` is called once there are counters to admit by; at once where there were some before."""
        if self._counts:
            told()
        else:
            self._on_counting = told

    def wake(self, tenants: Collection[UUID]) -> None:
        """The records of ``tenants`` have new lines."""
        self._behind.update(tenants)
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop`` is set. Outages are waited out."""
        backoff = Backoff(stop)
        looked = float("-inf")
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            try:
                if loop.time() - looked >= _POLL_S:
                    looked = loop.time()
                    await self._look_around()
                await self.settle()
                self._counting()
                backoff = Backoff(stop)
            except CountersLost:
                await self._rebuild_or_wait(stop, backoff)
                looked = float("-inf")
            except (BudgetUnavailable, DatabaseUnavailable, BusError) as error:
                logger.warning("settlement waits: %s", error, extra={"action": "settlement_waits"})
                await backoff.pause()
            except Exception as error:
                # Its text may hold what people wrote.
                logger.error("settlement is stuck: %s", type(error).__name__, extra={"action": "settlement_stuck"})
                logger.debug("what it said", exc_info=error)
                await backoff.pause()
            await self._next(stop)

    async def settle(self) -> None:
        """Settle what is known to be behind. Raises BudgetUnavailable, DatabaseUnavailable."""
        while self._behind:
            some = set(list(self._behind)[:_AT_ONCE])
            self._behind -= some
            try:
                await self._settle(some)
            except BaseException:
                self._behind |= some
                raise

    async def rebuild(self, stop: asyncio.Event) -> bool:
        """Count anew from the read models; False where another process does, or ``stop`` was set.

        Raises BudgetUnavailable, DatabaseUnavailable, BusError.
        """
        async with self._database.system() as session:
            got = await session.one("SELECT pg_try_advisory_xact_lock(:lock) AS mine", lock=_REBUILDING)
            if got is None or not got["mine"]:
                return False
            with suppress(CountersLost):
                await self._settlement.counts()
                return True
            began = await self._settlement.begin()
            logger.info("the counters of limits are being rebuilt", extra={"action": "budget_rebuild_began"})
            # Whatever was reserved before they were lost is published by then, or never will be.
            if await self._anything_recorded(session):
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), self._publish_s)
            while not stop.is_set() and not await self._freshness.caught_up(_FRESH_S):
                logger.warning("the rebuild of limits waits for projections", extra={"action": "budget_rebuild_waits"})
            if stop.is_set():
                return False
            snapshot = await budget_snapshot.taken(self._database)
            for part in snapshot.parts():
                began = await self._settlement.load(began, snapshot.day, part.counted, part.opened, part.cursors)
            await self._settlement.finish(began)
        self._settled = {}
        self._counting()
        logger.info("the counters of limits are whole again", extra={"action": "budget_rebuilt"})
        return True

    def _counting(self) -> None:
        self._counts = True
        if self._on_counting is not None:
            told, self._on_counting = self._on_counting, None
            told()

    async def _rebuild_or_wait(self, stop: asyncio.Event, backoff: Backoff) -> None:
        try:
            if await self.rebuild(stop):
                return
        except (BudgetUnavailable, DatabaseUnavailable, BusError) as error:
            logger.warning("the rebuild of limits failed: %s", error, extra={"action": "budget_rebuild_failed"})
        await backoff.pause()

    async def _anything_recorded(self, session: Session) -> bool:
        return await session.one("SELECT 1 FROM read_models.tenant_heads LIMIT 1") is not None

    async def _look_around(self) -> None:
        """What other processes recorded, and what was reserved and never seen."""
        self._settled = await self._settlement.cursors()
        heads = await self._database.at_once("SELECT tenant_id, sequence FROM read_models.tenant_heads")
        self._behind |= {row["tenant_id"] for row in heads if row["sequence"] > self._settled.get(row["tenant_id"], 0)}
        overdue = await self._settlement.overdue(_AT_ONCE)
        if overdue and await self._freshness.caught_up(_FRESH_S):
            await self._resolve(overdue)

    async def _resolve(self, overdue: Sequence[Overdue]) -> None:
        """The record has all that was published when these should have been; so what it does not name never was."""
        self._behind |= {one.tenant_id for one in overdue}
        await self.settle()
        rows = await self._database.at_once(
            "SELECT tenant_id, id FROM read_models.generations"
            " JOIN unnest(CAST(:tenants AS uuid[]), CAST(:ids AS uuid[])) AS w(tenant_id, id) USING (tenant_id, id)"
            " WHERE ended_at IS NULL",
            tenants=[one.tenant_id for one in overdue],
            ids=[one.generation_id for one in overdue],
        )
        open_ = {(row["tenant_id"], row["id"]) for row in rows}
        for one in overdue:
            await self._settlement.resolve(one, published=(one.tenant_id, one.generation_id) in open_)

    async def _settle(self, tenants: Collection[UUID]) -> None:
        after = {tenant_id: self._settled.get(tenant_id, 0) for tenant_id in tenants}
        heads = await self._database.at_once(
            "SELECT tenant_id, sequence FROM read_models.tenant_heads WHERE tenant_id = ANY(CAST(:tenants AS uuid[]))",
            tenants=list(tenants),
        )
        to = {row["tenant_id"]: min(row["sequence"], after[row["tenant_id"]] + _LINES) for row in heads}
        behind = [tenant_id for tenant_id in to if to[tenant_id] > after[tenant_id]]
        changes = await self._changes(behind, after, to)
        for tenant_id in behind:
            settled = await self._settlement.settle(
                tenant_id, after[tenant_id], to[tenant_id], changes.get(tenant_id, ())
            )
            self._settled[tenant_id] = settled
        for row in heads:
            if self._settled.get(row["tenant_id"], 0) < row["sequence"]:
                self._behind.add(row["tenant_id"])

    async def _changes(
        self, tenants: Sequence[UUID], after: dict[UUID, int], to: dict[UUID, int]
    ) -> dict[UUID, list[Opened | Spent]]:
        rows = await self._database.at_once(
            # Line by line through the index: what a planner without statistics would join reads whole tables.
            """SELECT l.tenant_id, l.envelope, g.ended, g.reserved_tokens
               FROM unnest(CAST(:tenants AS uuid[]), CAST(:after AS bigint[]), CAST(:to AS bigint[]))
                 AS w(tenant_id, after, upto)
               CROSS JOIN LATERAL (
                 SELECT e.tenant_id, e.sequence, e.subject, e.envelope FROM read_models.event_log e
                 WHERE e.tenant_id = w.tenant_id AND e.sequence > w.after AND e.sequence <= w.upto
                   AND e.type = ANY(:types) ORDER BY e.sequence) l
               LEFT JOIN LATERAL (
                 SELECT r.ended_at IS NOT NULL AS ended, r.reserved_tokens FROM read_models.generations r
                 WHERE r.tenant_id = l.tenant_id
                   AND r.id = CASE WHEN l.subject LIKE 'generation:%' THEN substr(l.subject, 12)::uuid END
                 LIMIT 1) g ON true
               ORDER BY l.tenant_id, l.sequence""",
            tenants=list(tenants),
            after=[after[tenant_id] for tenant_id in tenants],
            to=[to[tenant_id] for tenant_id in tenants],
            types=list(TYPES),
        )
        found: dict[UUID, list[Opened | Spent]] = {}
        for row in rows:
            changed = change(decode(row["envelope"]), ended=bool(row["ended"]))
            if changed is None:
                continue
            found.setdefault(row["tenant_id"], []).append(changed)
            if isinstance(changed, Spent) and changed.ends and row["reserved_tokens"]:
                _MEASURED.observe(changed.tokens / row["reserved_tokens"])
        return found

    async def _next(self, stop: asyncio.Event) -> None:
        stopped, woken = asyncio.ensure_future(stop.wait()), asyncio.ensure_future(self._wake.wait())
        await asyncio.wait((stopped, woken), timeout=_POLL_S, return_when=asyncio.FIRST_COMPLETED)
        for waiting in (stopped, woken):
            waiting.cancel()
        await asyncio.gather(stopped, woken, return_exceptions=True)
        self._wake.clear()
