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
from workers import claim_statements
from workers.history import has_ended


@dataclass(frozen=True, slots=True)
class WrappedKeys:
    """What the prompt is sealed by and what its conversation is, as they are stored; None: it was erased, or there is
    none. They are one where the tenant keeps content."""

    prompt: bytes | None
    conversation: bytes | None


@dataclass(frozen=True, slots=True)
class Claimed:
    """It is this worker's to run, as ``attempt``."""

    attempt: int
    keys: WrappedKeys = field(default=WrappedKeys(None, None), compare=False, repr=False)
    repairs: int = 0
    """Attempts in this pool that were made since an answer did not fit its schema."""
    cancel_requested: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Expired:
    """Nobody runs it any more; ``attempt`` was lost. To be taken over, handed on, or ended."""

    attempt: int
    cancel_requested: bool
    recorded: bool = False
    """The record says already that it was lost."""
    command: bytes | None = field(default=None, compare=False, repr=False)
    """The prompt as it was last claimed or handed on, for who has only the wish to cancel it."""
    repairs: int = field(default=0, compare=False)
    """As of Claimed."""


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
            claim_statements.ASK,
            ids=[prompt.generation_id for prompt in prompts],
            tenants=[asked.tenant_id for asked in group],
            conversations=[prompt.conversation_id for prompt in prompts],
            pools=[prompt.pool for prompt in prompts],
            afters=[asked.after for asked in group],
            message_ids=[f"{{{','.join(map(str, (*p.input_message_ids, p.generation_id)))}}}" for p in prompts],
            commands=[asked.command for asked in group],
            background=[prompt.purpose != "answer" for prompt in prompts],
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
            return Claimed(1, _keys(asked.prompt, row))
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
        recorded = row["recorded"] >= row["attempt"]
        return Expired(row["attempt"], row["cancel_requested"], recorded, repairs=row["repairs"])

    async def take_over(
        self, tenant_id: UUID, prompt: SubmitPrompt, lost: int, event: AnyEnvelope | None
    ) -> Claimed | Busy:
        """Begin the attempt after ``lost``, and record in the same transaction that it was lost; ``event`` is None
        where that is recorded already. Busy: somebody was faster.
        """
        async with self._database.tenant(tenant_id) as session:
            claim = {"id": prompt.generation_id, "lost": lost, "worker": self._worker, "lease": self._lease_s}
            row = await session.one(claim_statements.TAKE_OVER, recorded=event is None, **claim)
            if row is None:
                return Busy()
            await _to_outbox(session, event)
        return Claimed(lost + 1, _keys(prompt, row), row["repairs"])

    async def repair(self, tenant_id: UUID, prompt: SubmitPrompt, unfit: int, event: AnyEnvelope) -> Claimed | None:
        """Begin the attempt after ``unfit``, whose answer did not fit, and record in the same transaction what that one
        used. None: it is no longer this worker's.
        """
        async with self._database.tenant(tenant_id) as session:
            claim = {"id": prompt.generation_id, "unfit": unfit, "worker": self._worker, "lease": self._lease_s}
            row = await session.one(claim_statements.REPAIR, **claim)
            if row is None:
                return None
            await _to_outbox(session, event)
        return Claimed(unfit + 1, _keys(prompt, row), row["repairs"], row["cancel_requested"])

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
            handed_on = await session.execute(claim_statements.HAND_ON, **claim, **onto)
            if handed_on:
                await _to_outbox(session, event, command)
        return bool(handed_on)

    async def end(
        self, tenant_id: UUID, generation_id: UUID, attempt: int, terminal: bytes, *leads_to: AnyEnvelope
    ) -> bool:
        """Commit how this worker's attempt ended, and what it leads to in the same transaction. False: it is no longer
        this worker's; publish nothing."""
        ending = _Ending(tenant_id, generation_id, attempt, terminal)
        if not leads_to:
            return await self._endings.submit(ending)
        async with self._database.tenant(tenant_id) as session:
            ended = bool(await session.all(claim_statements.END, **self._columns([ending])))
            if ended:
                await _to_outbox(session, *leads_to)
        return ended

    async def _end(self, group: Sequence[_Ending]) -> list[bool | Exception]:
        rows = await self._database.at_once(claim_statements.END, **self._columns(group))
        ended = {row["generation_id"] for row in rows}
        return [ending.generation_id in ended for ending in group]

    def _columns(self, group: Sequence[_Ending]) -> dict[str, object]:
        return {
            "ids": [ending.generation_id for ending in group],
            "tenants": [ending.tenant_id for ending in group],
            "attempts": [ending.attempt for ending in group],
            "terminals": [ending.terminal for ending in group],
            "worker": self._worker,
        }

    async def end_lost(
        self, tenant_id: UUID, generation_id: UUID, lost: int, terminal: bytes, event: AnyEnvelope | None
    ) -> bool:
        """End what nobody runs any more, as the attempt after ``lost``, which never ran; ``event`` as in ``take_over``.

        What followers saw of the lost attempt is void, as with any restart. False: somebody was faster.
        """
        async with self._database.tenant(tenant_id) as session:
            ended = await session.execute(
                claim_statements.END_LOST, id=generation_id, lost=lost, recorded=event is None, terminal=terminal
            )
            if ended:
                await _to_outbox(session, event)
                await _let_key_die(session, generation_id)
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
                await _let_key_die(session, wish.generation_id)
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
        rows = await self._database.at_once(claim_statements.HEARTBEAT, worker=self._worker, lease=self._lease_s)
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
        await self._database.at_once(claim_statements.UNCLAIM, id=generation_id, attempt=attempt, worker=self._worker)

    async def forget_old(self, keep_hours: int) -> int:
        """Delete what ended over ``keep_hours`` ago. Returns how many."""
        async with self._database.system() as session:
            return await session.execute(
                "DELETE FROM work.claims WHERE ended_at < now() - make_interval(hours => :hours)", hours=keep_hours
            )


def _keys(prompt: SubmitPrompt, row: Row) -> WrappedKeys:
    return WrappedKeys(row["kept_key"] if prompt.keeps_content else row["own_key"], row["kept_key"])


async def _let_key_die(session: TenantSession, generation_id: UUID) -> None:
    """The prompt's own, where its tenant keeps no content."""
    await session.execute(
        "DELETE FROM control.data_keys WHERE generation_id IS NOT NULL AND generation_id = :id", id=generation_id
    )


async def _to_outbox(session: TenantSession, *envelopes: AnyEnvelope | None) -> None:
    for envelope in filter(None, envelopes):
        await session.execute(
            "INSERT INTO control.outbox (tenant_id, envelope) VALUES (:tenant_id, :envelope)",
            tenant_id=session.tenant_id,
            envelope=encode(envelope),
        )
