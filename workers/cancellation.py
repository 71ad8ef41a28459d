"""Cancels arrive on ``control``, so that they never wait behind a backlog of prompts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

from backplane.ports.bus import BusError, Consumer, Message, Publisher
from backplane.ports.database import DatabaseUnavailable
from backplane.ports.dead_letters import dead_letter
from backplane.ports.token_stream import Signals, StreamUnavailable, StreamWriter
from backplane.telemetry import logs
from backplane.telemetry.readiness import Readiness
from event_schemas.codec import NewerVersion, Poison, decode, encode
from event_schemas.generation import CancelGeneration, SubmitPrompt
from workers.billing import Billing
from workers.claims import Claims, Ended, Expired, Told
from workers.facts import Facts
from workers.publication import publish_event
from workers.terminal_frames import terminal_frame
from workers.worker import ENDED

logger = logging.getLogger(__name__)

CANCEL = "generations:cancel"
"""Signals channel on which a generation that is to be stopped is sent. The heartbeat is its safety net."""

_PAUSE_S = 1.0


class Cancellations:
    """Ends at once what nobody runs; tells its worker where somebody does."""

    def __init__(
        self,
        worker: str,
        claims: Claims,
        billing: Billing,
        consumer: Consumer,
        publisher: Publisher,
        streams: StreamWriter,
        signals: Signals,
        readiness: Readiness,
    ) -> None:
        self._worker = worker
        self._claims = claims
        self._billing = billing
        self._consumer = consumer
        self._publisher = publisher
        self._streams = streams
        self._signals = signals
        self._readiness = readiness

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                for message in await self._consumer.receive(limit=16):
                    await self._handle(message)
        except NewerVersion as newer:
            self._readiness.block("control", str(newer))
            logger.error("stopped at a newer version", extra={"action": "newer_version", "cause": str(newer)})
        finally:
            await self._consumer.close()

    async def _handle(self, message: Message) -> None:
        try:
            envelope = decode(message.payload)
            if not isinstance(envelope.data, CancelGeneration):
                raise Poison(f"{envelope.type} is no command for workers")
            wish = envelope.data
            facts = Facts(envelope, wish, self._worker, self._billing)
            with logs.concerning(tenant_id=envelope.tenantid, correlation_id=envelope.correlationid):
                done = await self._cancel(facts, wish)
            if not done:
                await self._consumer.nack(message, delay=_PAUSE_S)
                return
        except Poison as poison:
            await dead_letter(self._publisher, message, str(poison))
        except (DatabaseUnavailable, BusError) as error:
            logger.warning("cancel waits", extra={"action": "cancel_waits", "cause": str(error)})
            await self._consumer.nack(message, delay=_PAUSE_S)
            return
        with suppress(BusError):
            await self._consumer.ack(message)

    async def _cancel(self, facts: Facts, wish: CancelGeneration) -> bool:
        """False: somebody was faster; look again."""
        never_began = encode(facts.cancelled(0, None))
        answer = await self._claims.cancel(facts.tenant_id, wish, never_began)
        if isinstance(answer, Expired):
            output_tokens = 0
            with suppress(StreamUnavailable):
                cursor = await self._streams.last(facts.tenant_id, wish.generation_id)
                output_tokens = cursor.seq if cursor is not None and cursor.attempt == answer.attempt else 0
            terminal = encode(facts.cancelled(answer.attempt + 1, None))
            lost = None if answer.recorded else self._facts_of(answer, facts).lost(answer.attempt, output_tokens)
            if not await self._claims.end_lost(facts.tenant_id, wish.generation_id, answer.attempt, terminal, lost):
                return False
            answer = Ended(terminal)
        match answer:
            case Told():
                await self._signals.send(CANCEL, str(wish.generation_id))
            case Ended(terminal):
                await publish_event(self._publisher, str(facts.tenant_id), terminal)
                self._streams.append(facts.tenant_id, wish.generation_id, terminal_frame(decode(terminal)))
                await self._signals.send(ENDED, str(wish.conversation_id))
        return True

    def _facts_of(self, expired: Expired, of_wish: Facts) -> Facts:
        """Those of the prompt as it was last claimed: what was lost may have run in another pool than was asked."""
        if expired.command is None:
            return of_wish
        command = decode(expired.command)
        assert isinstance(command.data, SubmitPrompt)
        return Facts(command, command.data, self._worker, self._billing)


async def follow_cancels(signals: Signals, cancel: Callable[[UUID], None]) -> None:
    """Call ``cancel`` for each generation that some process wants stopped, until this task is cancelled."""
    async with signals.listen(CANCEL) as generations:
        async for generation_id in generations:
            with suppress(ValueError):
                cancel(UUID(generation_id))


async def forget_old_claims(claims: Claims, keep_hours: int, every_s: float = 3600.0) -> None:
    """Delete claims that ended long ago, once an hour, until this task is cancelled."""
    while True:
        await asyncio.sleep(every_s)
        with suppress(DatabaseUnavailable):
            await claims.forget_old(keep_hours)
