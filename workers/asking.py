"""Asking for the claim of a prompt that was delivered, and what to do with one whose worker was lost."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from backplane.ports.bus import Message
from backplane.ports.token_stream import StreamUnavailable, StreamWriter
from backplane.telemetry import logs
from event_schemas.codec import AnyEnvelope, Poison, decode, encode
from event_schemas.generation import SubmitPrompt
from workers.billing import Billing
from workers.claims import Busy, Claimed, Claims, Elsewhere, Ended, Expired, Mine
from workers.facts import Facts
from workers.outcome import Broken, Repair
from workers.shape import Unfit
from workers.waiting import waited

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Delivery:
    """A prompt as the bus delivered it, maybe several times."""

    messages: list[Message]
    """All that it stands for: a broker may deliver what is running to the very worker that runs it."""
    envelope: AnyEnvelope
    prompt: SubmitPrompt
    facts: Facts
    broken: Broken | None = None
    unfit: Unfit | None = None
    _waited: bool = False

    @classmethod
    def of(cls, message: Message, worker: str, billing: Billing) -> Delivery:
        """Raises Poison, NewerVersion."""
        envelope = decode(message.payload)
        if not isinstance(envelope.data, SubmitPrompt):
            raise Poison(f"{envelope.type} is no prompt")
        return cls([message], envelope, envelope.data, Facts(envelope, envelope.data, worker, billing))

    def waited(self) -> None:
        """It was claimed as its first attempt; again, where that one found no room, which counts no second time."""
        if not self._waited:
            self._waited = True
            waited(self.envelope, self.prompt)

    def say_whose(self) -> None:
        """In what the current task logs."""
        logs.concerns(
            tenant_id=self.envelope.tenantid,
            correlation_id=self.envelope.correlationid,
            generation_id=self.prompt.generation_id,
        )


class Asking:
    """After ``max_attempts`` attempts that were lost in one pool a generation goes to the next, or has failed."""

    def __init__(self, claims: Claims, streams: StreamWriter, max_attempts: int) -> None:
        self._claims = claims
        self._streams = streams
        self._max_attempts = max_attempts
        self._under_way: set[UUID] = set()

    async def ask(self, delivery: Delivery) -> Claimed | Ended | Elsewhere | Mine | Busy:
        """What is to become of ``delivery``, which does not run in this worker. Raises DatabaseUnavailable."""
        prompt, facts = delivery.prompt, delivery.facts
        if prompt.generation_id in self._under_way:
            return Busy()
        self._under_way.add(prompt.generation_id)
        try:
            answer = await self._claims.ask(facts.tenant_id, prompt, delivery.messages[0].payload)
            if isinstance(answer, Expired):
                return await self._take_over(delivery, answer)
            if isinstance(answer, Mine):
                # Postgres went away before it could say that the claim, or its release, was committed: nobody runs
                # it, and our heartbeat would keep it for ever.
                await self._claims.release([prompt.generation_id])
            return answer
        finally:
            self._under_way.discard(prompt.generation_id)

    async def hand_on(
        self, delivery: Delivery, last: Claimed | Expired, reason: str, output_tokens: int | None
    ) -> bool:
        """Give ``delivery`` to its next pool, after ``last`` here. False: there is none, or it is no longer this
        worker's to give. Raises DatabaseUnavailable."""
        facts, attempt = delivery.facts, last.attempt
        command = facts.handed_on(attempt, reason, last.repairs)
        if command is None:
            return False
        recorded = isinstance(last, Expired) and last.recorded
        lost = None if recorded else facts.lost(attempt, output_tokens)
        generation_id = delivery.prompt.generation_id
        if not await self._claims.hand_on(facts.tenant_id, generation_id, attempt, command, lost):
            return False
        about = {"generation_id": str(generation_id), "attempt": attempt, "reason": reason}
        logger.warning("handed on to another pool", extra={"action": "handed_on"} | about)
        return True

    async def repair(self, delivery: Delivery, repair: Repair) -> Claimed | None:
        """Claim the attempt after one whose answer did not fit. None: it is no longer this worker's.

        Raises DatabaseUnavailable."""
        delivery.unfit = repair.unfit
        void = delivery.facts.unfit(repair.unfit.attempt, repair.usage)
        return await self._claims.repair(delivery.facts.tenant_id, delivery.prompt, repair.unfit.attempt, void)

    async def _take_over(self, delivery: Delivery, expired: Expired) -> Claimed | Busy | Ended | Elsewhere:
        facts, generation_id = delivery.facts, delivery.prompt.generation_id
        broken = delivery.broken
        if broken is not None and broken.attempt == expired.attempt:
            output_tokens, reason, why = broken.output_tokens, broken.reason, broken.detail
        else:
            output_tokens, reason, why = 0, "worker_lost", "its worker was lost"
            with suppress(StreamUnavailable):
                cursor = await self._streams.last(facts.tenant_id, generation_id)
                output_tokens = cursor.seq if cursor is not None and cursor.attempt == expired.attempt else 0
        lost = None if expired.recorded else facts.lost(expired.attempt, output_tokens)
        if expired.cancel_requested:
            terminal = encode(facts.cancelled(expired.attempt + 1, None))
        elif expired.attempt - delivery.prompt.earlier_attempts - expired.repairs >= self._max_attempts:
            if await self.hand_on(delivery, expired, reason, output_tokens):
                return Elsewhere()
            detail = f"{expired.attempt} attempts were made and none came to an end; the last: {why}"
            terminal = encode(facts.failed(expired.attempt + 1, "attempts_exhausted", detail, None))
        else:
            return await self._claims.take_over(facts.tenant_id, delivery.prompt, expired.attempt, lost)
        ended = await self._claims.end_lost(facts.tenant_id, generation_id, expired.attempt, terminal, lost)
        return Ended(terminal) if ended else Busy()
