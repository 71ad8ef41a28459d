"""Who runs a generation, which attempt it is, and how it ended.

A delivery only asks; this table decides, by the database's clock. The attempt is the fence: what a worker says about an
attempt that is no longer its own is said by nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from backplane.ports.database import Database, TenantSession
from event_schemas.codec import AnyEnvelope, encode
from event_schemas.generation import CancelGeneration, SubmitPrompt
from workers.history import has_ended


@dataclass(frozen=True, slots=True)
class Claimed:
    """It is this worker's to run, as ``attempt``."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Expired:
    """Nobody runs it any more; ``attempt`` was lost. To be taken over, or ended."""

    attempt: int
    cancel_requested: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """It has ended; ``terminal`` is the encoded event that says how."""

    terminal: bytes


class Mine:
    """This worker runs it already."""


class Busy:
    """Somebody else runs it, or its conversation is taken, or what it answers to has not ended. Ask again later."""


class Elsewhere:
    """It was handed to another pool; this delivery is void."""


class Told:
    """It runs somewhere; its worker will see that its cancel was asked for."""


Answer = Claimed | Expired | Ended | Mine | Busy | Elsewhere


class Claims:
    """The table ``work.claims``, as one worker process uses it. Everything here raises DatabaseUnavailable."""

    def __init__(self, database: Database, worker: str, lease_s: float) -> None:
        self._database = database
        self._worker = worker
        self._lease_s = lease_s

    async def ask(self, tenant_id: UUID, prompt: SubmitPrompt, command: bytes) -> Answer:
        """May this worker run ``prompt`` now? ``command`` is its envelope as it came."""
        async with self._database.tenant(tenant_id) as session:
            row = await session.one(
                "SELECT pool, attempt, worker, lease_until > now() AS held, cancel_requested, terminal"
                " FROM work.claims WHERE generation_id = :id",
                id=prompt.generation_id,
            )
            if row is None:
                return await self._first(session, prompt, command)
        if row["terminal"] is not None:
            return Ended(row["terminal"])
        if row["held"]:
            return Mine() if row["worker"] == self._worker else Busy()
        if row["pool"] != prompt.pool:
            return Elsewhere()
        return Expired(row["attempt"], row["cancel_requested"])

    async def _first(self, session: TenantSession, prompt: SubmitPrompt, command: bytes) -> Answer:
        if prompt.parent_message_id is not None and not await has_ended(session, prompt.parent_message_id):
            return Busy()
        # Two things can be in the way, and both mean to ask again: a claim of this generation that was faster, or,
        # by the partial unique index, another generation that runs in this conversation.
        inserted = await session.execute(
            "INSERT INTO work.claims"
            " (generation_id, tenant_id, conversation_id, pool, attempt, worker, lease_until, message_ids, command)"
            " VALUES (:id, :tenant_id, :conversation_id, :pool, 1, :worker,"
            " clock_timestamp() + make_interval(secs => :lease), :message_ids, :command) ON CONFLICT DO NOTHING",
            id=prompt.generation_id,
            tenant_id=session.tenant_id,
            conversation_id=prompt.conversation_id,
            pool=prompt.pool,
            worker=self._worker,
            lease=self._lease_s,
            message_ids=[*prompt.input_message_ids, prompt.generation_id],
            command=command,
        )
        return Claimed(1) if inserted else Busy()

    async def take_over(self, tenant_id: UUID, generation_id: UUID, lost: int, event: AnyEnvelope) -> Claimed | Busy:
        """Begin the attempt after ``lost``, and record in the same transaction that it was lost.

        Busy: somebody was faster.
        """
        async with self._database.tenant(tenant_id) as session:
            taken = await session.execute(
                "UPDATE work.claims SET attempt = attempt + 1, worker = :worker,"
                " lease_until = clock_timestamp() + make_interval(secs => :lease)"
                " WHERE generation_id = :id AND attempt = :lost AND terminal IS NULL AND lease_until <= now()",
                id=generation_id,
                lost=lost,
                worker=self._worker,
                lease=self._lease_s,
            )
            if not taken:
                return Busy()
            await _to_outbox(session, event)
        return Claimed(lost + 1)

    async def end(self, tenant_id: UUID, generation_id: UUID, attempt: int, terminal: bytes) -> bool:
        """Commit how this worker's attempt ended. False: it is no longer this worker's; publish nothing."""
        async with self._database.tenant(tenant_id) as session:
            ended = await session.execute(
                "UPDATE work.claims SET terminal = :terminal, ended_at = now(), lease_until = NULL"
                " WHERE generation_id = :id AND attempt = :attempt AND worker = :worker AND terminal IS NULL",
                id=generation_id,
                attempt=attempt,
                worker=self._worker,
                terminal=terminal,
            )
        return bool(ended)

    async def end_lost(
        self, tenant_id: UUID, generation_id: UUID, lost: int, terminal: bytes, event: AnyEnvelope
    ) -> bool:
        """End what nobody runs any more, as the attempt after ``lost``, which never ran; and record the loss.

        What followers saw of the lost attempt is void, as with any restart. False: somebody was faster.
        """
        async with self._database.tenant(tenant_id) as session:
            ended = await session.execute(
                "UPDATE work.claims SET attempt = attempt + 1, terminal = :terminal, ended_at = now(),"
                " lease_until = NULL"
                " WHERE generation_id = :id AND attempt = :lost AND terminal IS NULL AND lease_until <= now()",
                id=generation_id,
                lost=lost,
                terminal=terminal,
            )
            if ended:
                await _to_outbox(session, event)
        return bool(ended)

    async def cancel(self, tenant_id: UUID, wish: CancelGeneration, terminal: bytes) -> Ended | Told | Expired:
        """Stop a generation: with ``terminal``, as attempt 0, where it never began; else by telling its worker."""
        async with self._database.tenant(tenant_id) as session:
            inserted = await session.execute(
                "INSERT INTO work.claims (generation_id, tenant_id, conversation_id, pool, attempt, cancel_requested,"
                " message_ids, terminal, ended_at)"
                " VALUES (:id, :tenant_id, :conversation_id, :pool, 0, true, :message_ids, :terminal, now())"
                " ON CONFLICT DO NOTHING",
                id=wish.generation_id,
                tenant_id=tenant_id,
                conversation_id=wish.conversation_id,
                pool=wish.pool,
                message_ids=[wish.generation_id],
                terminal=terminal,
            )
            if inserted:
                return Ended(terminal)
            row = await session.one(
                "UPDATE work.claims SET cancel_requested = true WHERE generation_id = :id"
                " RETURNING attempt, lease_until > now() AS held, terminal",
                id=wish.generation_id,
            )
            assert row is not None, "claims are deleted only long after they ended"
        if row["terminal"] is not None:
            return Ended(row["terminal"])
        return Told() if row["held"] else Expired(row["attempt"], True)

    async def heartbeat(self) -> Mapping[UUID, bool]:
        """Renew all leases of this worker. Returns what it still runs → whether its cancel was asked for."""
        async with self._database.system() as session:
            rows = await session.all(
                "UPDATE work.claims SET lease_until = clock_timestamp() + make_interval(secs => :lease)"
                " WHERE worker = :worker AND terminal IS NULL RETURNING generation_id, cancel_requested",
                worker=self._worker,
                lease=self._lease_s,
            )
        return {row["generation_id"]: row["cancel_requested"] for row in rows}

    async def release(self, generation_ids: Sequence[UUID]) -> None:
        """Give these up: whoever asks next may have them at once."""
        async with self._database.system() as session:
            await session.execute(
                "UPDATE work.claims SET lease_until = now(), worker = NULL"
                " WHERE worker = :worker AND terminal IS NULL AND generation_id = ANY(:ids)",
                worker=self._worker,
                ids=list(generation_ids),
            )

    async def forget_old(self, keep_hours: int) -> int:
        """Delete what ended over ``keep_hours`` ago. Returns how many."""
        async with self._database.system() as session:
            return await session.execute(
                "DELETE FROM work.claims WHERE ended_at < now() - make_interval(hours => :hours)", hours=keep_hours
            )


async def _to_outbox(session: TenantSession, event: AnyEnvelope) -> None:
    await session.execute(
        "INSERT INTO control.outbox (tenant_id, envelope) VALUES (:tenant_id, :envelope)",
        tenant_id=session.tenant_id,
        envelope=encode(event),
    )
