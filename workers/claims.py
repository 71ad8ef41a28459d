"""Who runs a generation, which attempt it is, and how it ended.

A delivery only asks; this table decides, by the database's clock. The attempt is the fence: what a worker says about an
attempt that is no longer its own is said by nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from backplane.ports.database import Database, Row, TenantSession
from backplane.ports.group_commit import GroupCommit
from event_schemas.codec import AnyEnvelope, encode
from event_schemas.generation import CancelGeneration, SubmitPrompt
from workers.history import has_ended


@dataclass(frozen=True, slots=True)
class Claimed:
    """It is this worker's to run, as ``attempt``."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Expired:
    """Nobody runs it any more; ``attempt`` was lost. To be taken over, handed on, or ended."""

    attempt: int
    cancel_requested: bool
    recorded: bool = False
    """The record says already that it was lost."""
    command: bytes | None = field(default=None, compare=False, repr=False)
    """The prompt as it was last claimed or handed on, for who has only the wish to cancel it."""


@dataclass(frozen=True, slots=True)
class Ended:
    """It has ended; ``terminal`` is the encoded event that says how."""

    terminal: bytes


class Mine:
    """This worker runs it already."""


class Busy:
    """Somebody else runs it, or its conversation is taken, or what it answers to has not ended. Ask again later."""


class Elsewhere:
    """It was handed on to another pool; this delivery is void."""


class Told:
    """It runs somewhere; its worker will see that its cancel was asked for."""


Answer = Claimed | Expired | Ended | Mine | Busy | Elsewhere


@dataclass(frozen=True, slots=True)
class _Asked:
    """One prompt that is asked for; ``after`` is what has to have ended first."""

    tenant_id: UUID
    prompt: SubmitPrompt
    command: bytes
    after: UUID | None


@dataclass(frozen=True, slots=True)
class _Ending:
    tenant_id: UUID
    generation_id: UUID
    attempt: int
    terminal: bytes


class _Unclaimed:
    """Whether what it comes after has ended is known to no claim, so the read model has to say."""


class Claims:
    """The table ``work.claims``, as one worker process uses it. Everything here raises DatabaseUnavailable."""

    def __init__(self, database: Database, worker: str, lease_s: float) -> None:
        self._database = database
        self._worker = worker
        self._lease_s = lease_s
        # What comes during a commit shares the next one.
        self._asks: GroupCommit[_Asked, Answer | _Unclaimed] = GroupCommit(self._ask, size=lambda it: len(it.command))
        self._endings: GroupCommit[_Ending, bool] = GroupCommit(self._end, size=lambda it: len(it.terminal))

    async def ask(self, tenant_id: UUID, prompt: SubmitPrompt, command: bytes) -> Answer:
        """May this worker run ``prompt`` now? ``command`` is its envelope as it came."""
        asked = _Asked(tenant_id, prompt, command, prompt.parent_message_id)
        answer = await self._asks.submit(asked)
        if not isinstance(answer, _Unclaimed):
            return answer
        assert asked.after is not None, "only what comes after something waits for it"
        async with self._database.tenant(tenant_id) as session:
            if not await has_ended(session, asked.after):
                return Busy()
        # What has ended has ended for good, so it is no more to wait for.
        answer = await self._asks.submit(replace(asked, after=None))
        assert not isinstance(answer, _Unclaimed)
        return answer

    async def _ask(self, group: Sequence[_Asked]) -> list[Answer | _Unclaimed | Exception]:
        prompts = [asked.prompt for asked in group]
        rows = await self._database.at_once(
            _ASK,
            ids=[prompt.generation_id for prompt in prompts],
            tenants=[asked.tenant_id for asked in group],
            conversations=[prompt.conversation_id for prompt in prompts],
            pools=[prompt.pool for prompt in prompts],
            afters=[asked.after for asked in group],
            message_ids=[f"{{{','.join(map(str, (*p.input_message_ids, p.generation_id)))}}}" for p in prompts],
            commands=[asked.command for asked in group],
            worker=self._worker,
            lease=self._lease_s,
        )
        by_id = {row["id"]: row for row in rows}
        answers: list[Answer | _Unclaimed | Exception] = []
        for asked in group:
            row = by_id[asked.prompt.generation_id]
            answers.append(self._answer(asked, row))
            # Of several deliveries of one prompt, one gets the claim.
            row["claimed"] = False
        return answers

    def _answer(self, asked: _Asked, row: Row) -> Answer | _Unclaimed:
        if row["claimed"]:
            return Claimed(1)
        if row["attempt"] is None:
            # Two things can be in the way, and both mean to ask again: a claim of this generation that was faster,
            # or, by the partial unique index, another generation that runs in this conversation.
            return _Unclaimed() if asked.after is not None and row["after_ended"] is None else Busy()
        if row["terminal"] is not None:
            return Ended(row["terminal"])
        if row["handed_on"] != len(asked.prompt.fell_back):
            return Elsewhere()
        if row["held"]:
            return Mine() if row["worker"] == self._worker else Busy()
        return Expired(row["attempt"], row["cancel_requested"], row["recorded"] >= row["attempt"])

    async def take_over(
        self, tenant_id: UUID, generation_id: UUID, lost: int, event: AnyEnvelope | None
    ) -> Claimed | Busy:
        """Begin the attempt after ``lost``, and record in the same transaction that it was lost; ``event`` is None
        where that is recorded already. Busy: somebody was faster.
        """
        async with self._database.tenant(tenant_id) as session:
            claim = {"id": generation_id, "lost": lost, "worker": self._worker, "lease": self._lease_s}
            if not await session.execute(_TAKE_OVER, recorded=event is None, **claim):
                return Busy()
            await _to_outbox(session, event)
        return Claimed(lost + 1)

    async def hand_on(
        self, tenant_id: UUID, generation_id: UUID, attempt: int, command: AnyEnvelope, event: AnyEnvelope | None
    ) -> bool:
        """Give it to another pool by ``command``, after ``attempt``, which this worker or nobody runs; ``event`` as in
        ``take_over``. False: it is no longer this worker's.
        """
        prompt = command.data
        assert isinstance(prompt, SubmitPrompt)
        async with self._database.tenant(tenant_id) as session:
            claim = {"id": generation_id, "attempt": attempt, "worker": self._worker}
            onto = {"pool": prompt.pool, "times": len(prompt.fell_back), "command": encode(command)}
            handed_on = await session.execute(_HAND_ON, **claim, **onto)
            if handed_on:
                await _to_outbox(session, event, command)
        return bool(handed_on)

    async def end(self, tenant_id: UUID, generation_id: UUID, attempt: int, terminal: bytes) -> bool:
        """Commit how this worker's attempt ended. False: it is no longer this worker's; publish nothing."""
        return await self._endings.submit(_Ending(tenant_id, generation_id, attempt, terminal))

    async def _end(self, group: Sequence[_Ending]) -> list[bool | Exception]:
        rows = await self._database.at_once(
            _END,
            ids=[ending.generation_id for ending in group],
            tenants=[ending.tenant_id for ending in group],
            attempts=[ending.attempt for ending in group],
            terminals=[ending.terminal for ending in group],
            worker=self._worker,
        )
        ended = {row["generation_id"] for row in rows}
        return [ending.generation_id in ended for ending in group]

    async def end_lost(
        self, tenant_id: UUID, generation_id: UUID, lost: int, terminal: bytes, event: AnyEnvelope | None
    ) -> bool:
        """End what nobody runs any more, as the attempt after ``lost``, which never ran; ``event`` as in ``take_over``.

        What followers saw of the lost attempt is void, as with any restart. False: somebody was faster.
        """
        async with self._database.tenant(tenant_id) as session:
            ended = await session.execute(
                _END_LOST, id=generation_id, lost=lost, recorded=event is None, terminal=terminal
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
                " RETURNING attempt, lease_until > now() AS held, terminal, recorded, command",
                id=wish.generation_id,
            )
            assert row is not None, "claims are deleted only long after they ended"
        if row["terminal"] is not None:
            return Ended(row["terminal"])
        if row["held"]:
            return Told()
        return Expired(row["attempt"], True, row["recorded"] >= row["attempt"], row["command"])

    async def heartbeat(self) -> Mapping[UUID, bool]:
        """Renew all leases of this worker. Returns what it still runs → whether its cancel was asked for."""
        rows = await self._database.at_once(_HEARTBEAT, worker=self._worker, lease=self._lease_s)
        return {row["generation_id"]: row["cancel_requested"] for row in rows}

    async def release(self, generation_ids: Sequence[UUID]) -> None:
        """Give these up: whoever asks next may have them at once."""
        await self._database.at_once(
            "UPDATE work.claims SET lease_until = now(), worker = NULL"
            " WHERE worker = :worker AND terminal IS NULL AND generation_id = ANY(:ids)",
            worker=self._worker,
            ids=list(generation_ids),
        )

    async def unclaim(self, generation_id: UUID, attempt: int) -> None:
        """As if ``attempt`` had never been claimed: it asked nobody and said nothing. Whoever asks next may have it."""
        await self._database.at_once(_UNCLAIM, id=generation_id, attempt=attempt, worker=self._worker)

    async def forget_old(self, keep_hours: int) -> int:
        """Delete what ended over ``keep_hours`` ago. Returns how many."""
        async with self._database.system() as session:
            return await session.execute(
                "DELETE FROM work.claims WHERE ended_at < now() - make_interval(hours => :hours)", hours=keep_hours
            )


async def _to_outbox(session: TenantSession, *envelopes: AnyEnvelope | None) -> None:
    for envelope in filter(None, envelopes):
        await session.execute(
            "INSERT INTO control.outbox (tenant_id, envelope) VALUES (:tenant_id, :envelope)",
            tenant_id=session.tenant_id,
            envelope=encode(envelope),
        )


# A group inserts in the order of conversations, and locks in the order of generations, so that no two wait for each
# other. The claims that are looked at are those from before the insert. OFFSET 0 and ANY keep the planner, which knows
# nothing of a table that was empty a moment ago, to the indexes.
_ASK = """
WITH asked AS MATERIALIZED (
  SELECT a.*, (SELECT bool_and(p.terminal IS NOT NULL) FROM work.claims p
               WHERE p.message_ids @> ARRAY[a.after] AND p.tenant_id = a.tenant_id) AS after_ended
  FROM unnest(CAST(:ids AS uuid[]), CAST(:tenants AS uuid[]), CAST(:conversations AS uuid[]), CAST(:pools AS text[]),
              CAST(:afters AS uuid[]), CAST(:message_ids AS text[]), CAST(:commands AS bytea[]))
    AS a(id, tenant_id, conversation_id, pool, after, message_ids, command)),
claimed AS (
  INSERT INTO work.claims
    (generation_id, tenant_id, conversation_id, pool, attempt, worker, lease_until, message_ids, command)
  SELECT a.id, a.tenant_id, a.conversation_id, a.pool, 1, :worker,
         clock_timestamp() + make_interval(secs => :lease), CAST(a.message_ids AS uuid[]), a.command
  FROM asked a WHERE a.after IS NULL OR a.after_ended ORDER BY a.conversation_id, a.id
  ON CONFLICT DO NOTHING RETURNING generation_id)
SELECT a.id, a.after_ended, a.id IN (SELECT generation_id FROM claimed) AS claimed, c.*
FROM asked a LEFT JOIN LATERAL (
  SELECT c.handed_on, c.attempt, c.recorded, c.worker, c.lease_until > now() AS held, c.cancel_requested, c.terminal
  FROM work.claims c WHERE c.generation_id = a.id OFFSET 0) c ON true
"""
# What nobody runs is still as whoever asked saw it.
_TAKE_OVER = """
UPDATE work.claims SET attempt = attempt + 1, recorded = :lost, worker = :worker,
  lease_until = clock_timestamp() + make_interval(secs => :lease)
WHERE generation_id = :id AND attempt = :lost AND terminal IS NULL AND lease_until <= now()
  AND (recorded >= attempt) = :recorded
"""
_END_LOST = """
UPDATE work.claims SET attempt = attempt + 1, recorded = :lost, terminal = :terminal, ended_at = now(),
  lease_until = NULL
WHERE generation_id = :id AND attempt = :lost AND terminal IS NULL AND lease_until <= now()
  AND (recorded >= attempt) = :recorded
"""
_HAND_ON = """
UPDATE work.claims SET pool = :pool, handed_on = :times, command = :command, recorded = :attempt, worker = NULL,
  lease_until = now()
WHERE generation_id = :id AND attempt = :attempt AND handed_on = :times - 1 AND terminal IS NULL
  AND (worker = :worker OR lease_until <= now())
"""
_END = """
WITH mine AS MATERIALIZED (
  SELECT generation_id FROM work.claims WHERE generation_id = ANY(CAST(:ids AS uuid[]))
  ORDER BY generation_id FOR UPDATE)
UPDATE work.claims c SET terminal = e.terminal, ended_at = now(), lease_until = NULL
FROM unnest(CAST(:ids AS uuid[]), CAST(:tenants AS uuid[]), CAST(:attempts AS integer[]), CAST(:terminals AS bytea[]))
  AS e(id, tenant_id, attempt, terminal)
WHERE c.generation_id = ANY(ARRAY(SELECT generation_id FROM mine)) AND c.generation_id = e.id
  AND c.tenant_id = e.tenant_id AND c.attempt = e.attempt AND c.worker = :worker AND c.terminal IS NULL
RETURNING c.generation_id
"""
_HEARTBEAT = """
WITH mine AS MATERIALIZED (
  SELECT generation_id FROM work.claims WHERE worker = :worker AND terminal IS NULL ORDER BY generation_id FOR UPDATE)
UPDATE work.claims c SET lease_until = clock_timestamp() + make_interval(secs => :lease)
WHERE c.generation_id = ANY(ARRAY(SELECT generation_id FROM mine)) RETURNING c.generation_id, c.cancel_requested
"""
# What was to be cancelled meanwhile is released like any other, so that the wish is not lost.
_UNCLAIM = """
WITH gone AS (
  DELETE FROM work.claims
  WHERE generation_id = :id AND attempt = 1 AND :attempt = 1 AND worker = :worker AND terminal IS NULL
    AND NOT cancel_requested
  RETURNING generation_id)
UPDATE work.claims SET lease_until = now(), worker = NULL,
  attempt = CASE WHEN attempt > 1 AND NOT cancel_requested THEN attempt - 1 ELSE attempt END
WHERE generation_id = :id AND attempt = :attempt AND worker = :worker AND terminal IS NULL
  AND generation_id NOT IN (SELECT generation_id FROM gone)
"""
