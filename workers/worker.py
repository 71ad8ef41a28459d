"""A worker: takes prompts off its pool's topic, claims them, runs as many at a time as it has slots."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress
from uuid import UUID

from backplane.ports.bus import BusError, Consumer, Message
from backplane.ports.database import DatabaseUnavailable
from backplane.ports.dead_letters import dead_letter
from backplane.ports.key_room import Full
from backplane.ports.token_stream import Signals
from backplane.settings import WorkerSettings
from backplane.telemetry.readiness import Readiness
from event_schemas.codec import AnyEnvelope, NewerVersion, Poison, decode, encode
from event_schemas.generation import Terminal
from workers import estimate, tracing
from workers.asking import Asking, Delivery
from workers.attempt import Attempt
from workers.claims import Busy, Claimed, Claims, Elsewhere, Ended, Mine
from workers.either import either
from workers.held import Held
from workers.insistence import insist
from workers.outcome import Broken, Repair, Stop, Unstarted, outcomes, used
from workers.ports import AttemptPorts
from workers.publication import publish_event
from workers.running import Run, Running
from workers.terminal_frames import terminal_frame
from workers.turns import Turns
from workers.upstream import Leave
from workers.waiting import Waiting

logger = logging.getLogger(__name__)

ENDED = "generations:ended"
"""Signals channel on which the conversation of a generation that ended is sent."""

_MOST_HELD = 256
_MOST_OF_A_TENANT = 64
_FLOOD_PAUSE_S = 5.0
_MOST_PUT_BACK = 1024
"""At a time; else a backlog of one tenant would be received and put back all the time, to no end."""
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0


class Worker:
    """``name`` is unique among all processes that ever ran. ``slots`` bounds the generations run at once."""

    def __init__(
        self,
        name: str,
        slots: int,
        settings: WorkerSettings,
        claims: Claims,
        consumer: Consumer,
        ports: AttemptPorts,
        signals: Signals,
        readiness: Readiness,
    ) -> None:
        self._name = name
        self._turns = Turns(slots)
        self.keys_changed = self._turns.reopen
        self._free = slots
        self._without_room = 0
        self._put_back = 0
        self._settings = settings
        self._claims = claims
        self._consumer = consumer
        self._ports = ports
        self._signals = signals
        self._readiness = readiness
        self._asking = Asking(claims, ports.streams, settings.max_attempts)
        self.running = Running(claims)
        self._held = Held()
        self._deliveries: set[asyncio.Task[None]] = set()
        self.waiting = Waiting()
        self._room = asyncio.Event()
        self._draining = False

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set; then finish what runs within the grace period, and give the rest back."""
        background = [
            asyncio.create_task(self.running.heartbeats(self._settings.lease_s / 4)),
            asyncio.create_task(self.running.emissions(self._settings.emit_every_s)),
            asyncio.create_task(self._endings()),
        ]
        try:
            await self._receive(stop)
            await self._drain()
        finally:
            for task in (*background, *self._deliveries):
                task.cancel()
            await asyncio.gather(*background, *self._deliveries, return_exceptions=True)
            await self._consumer.close()
            await self._ports.streams.flush()

    def wake(self, conversation_id: UUID) -> None:
        """A generation of this conversation ended; what waits for it may ask again."""
        self._held.wake(conversation_id)

    async def _receive(self, stop: asyncio.Event) -> None:
        stopping = asyncio.create_task(stop.wait())
        try:
            await self._receive_until(stopping)
        finally:
            stopping.cancel()

    async def _receive_until(self, stopping: asyncio.Task[bool]) -> None:
        while not stopping.done():
            self._room.clear()
            if self._free <= 0 or self._put_back >= _MOST_PUT_BACK:
                await either(stopping, asyncio.create_task(self._room.wait()))
                continue
            receiving = asyncio.create_task(self._consumer.receive(limit=self._free))
            if not await either(stopping, receiving):
                break
            for message in receiving.result():
                try:
                    await self._accept(message)
                except NewerVersion as newer:
                    self._readiness.block("commands", str(newer))
                    logger.error("stopped at a newer version", extra={"action": "newer_version", "cause": str(newer)})
                    await stopping
                    return

    async def _accept(self, message: Message) -> None:
        try:
            delivery = Delivery.of(message, self._name, self._ports.billing)
        except Poison as poison:
            reason = str(poison)
            logger.error("dead letter", extra={"action": "dead_letter", "topic": message.topic, "cause": reason})
            await insist(lambda: dead_letter(self._ports.publisher, message, reason))
            return await self._ack(message)
        if len(self._held) + self._without_room >= _MOST_HELD:
            return await self._come_again(message, _LONGEST_PAUSE_S)
        if self._turns.waiting(delivery.facts.tenant_id) >= _MOST_OF_A_TENANT:
            # A flood must not fill the places of others, and comes back when some of it may have gone.
            return await self._come_again(message, random.uniform(0.5, 1.5) * _FLOOD_PAUSE_S)
        self._free -= 1
        task = asyncio.create_task(self._deliver(delivery))
        self._deliveries.add(task)
        task.add_done_callback(self._deliveries.discard)
        return None

    async def _come_again(self, message: Message, delay: float) -> None:
        self._put_back += 1
        asyncio.get_running_loop().call_later(delay, self._comes)
        await self._consumer.nack(message, delay=delay)

    def _comes(self) -> None:
        self._put_back -= 1
        self._room.set()

    async def _deliver(self, delivery: Delivery) -> None:
        delivery.say_whose()
        tokens = estimate.tokens(delivery.prompt)
        pause_s, in_vain = _FIRST_PAUSE_S, False
        while True:
            ring = self._ring_of(delivery)
            with self.waiting.since(delivery.envelope.time):
                await self._turn(delivery, tokens, ring, again=in_vain)
            try:
                outcome = self._draining or await self._take(delivery, ring, tokens)
            except DatabaseUnavailable as error:
                logger.warning("claim waits", extra={"action": "claim_waits", "cause": str(error)})
                outcome = False
            except Exception as bug:
                # Its text may hold what people wrote. What is not done is asked for again, never dropped.
                about = {"generation_id": str(delivery.prompt.generation_id), "cause": type(bug).__name__}
                logger.error("delivery failed", extra={"action": "delivery_failed"} | about)
                logger.debug("what it said", exc_info=bug)
                outcome = False
            finally:
                # Waiting takes no slot: what waits below leaves its place to others.
                self._free += 1
                self._room.set()
                self._turns.free()
            if outcome is True:
                return
            if in_vain := isinstance(outcome, Full):
                if ring == self._ring_of(delivery):  # else it was another one that had no room
                    self._turns.close(ring, outcome.wait_s)
            else:
                with self.waiting.since(delivery.envelope.time):
                    await self._held.wait(delivery.prompt.conversation_id, pause_s)
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            self._free -= 1

    def _ring_of(self, delivery: Delivery) -> str:
        # Who may go elsewhere does not wait behind those who may not.
        return self._ports.upstream.ring_of(delivery.facts.tenant_id) + "+" * bool(delivery.prompt.fallbacks)

    async def _turn(self, delivery: Delivery, tokens: int, ring: str, *, again: bool) -> None:
        """Wait for a slot. Who waits for room in its ring of keys keeps nobody from being received."""
        without_room = self._turns.is_closed(ring)
        if without_room:
            self._without_room += 1
            self._free += 1
            self._room.set()
        try:
            prompt, idle = delivery.prompt, delivery.prompt.batch_id is not None
            await self._turns.take(delivery.facts.tenant_id, prompt.share, tokens, ring, again=again, idle=idle)
        finally:
            if without_room:
                self._without_room -= 1
                self._free -= 1

    async def _take(self, delivery: Delivery, ring: str, tokens: int) -> bool | Full:
        """Take leave of the upstream, then ask for the claim. True: this delivery is dealt with."""
        try:
            permit = await self._ports.upstream.permit(delivery.facts.tenant_id, tokens)
        finally:
            self._turns.asked(ring)
        if isinstance(permit, Full) and not (permit.refused or self._goes_elsewhere(delivery, permit)):
            return permit
        return await self._ask(delivery, permit)

    def _goes_elsewhere(self, delivery: Delivery, full: Full) -> bool:
        return bool(delivery.prompt.fallbacks) and self._ports.upstream.is_away(full)

    async def _ask(self, delivery: Delivery, permit: Leave) -> bool | Full:
        """Ask for the claim and act on the answer. True: this delivery is dealt with."""
        try:
            answer = await self._answer(delivery)
            if isinstance(answer, Claimed):
                unused, permit = permit, None
                if answer.attempt == 1:
                    delivery.waited()
                return await self._attempt(delivery, answer, unused)
        finally:
            await self._ports.upstream.give_back(permit)
        match answer:
            case Ended(terminal):
                await publish_event(self._ports.publisher, str(delivery.facts.tenant_id), terminal)
                await self._told(delivery.facts.tenant_id, decode(terminal), *delivery.messages)
                return True
            case Elsewhere():
                await self._ack(*delivery.messages)
                return True
            case bool(done):
                return done
            case Mine() | Busy():
                return False

    async def _answer(self, delivery: Delivery) -> Claimed | Ended | Elsewhere | Mine | Busy | bool:
        """What the claims say; a bool where it runs here already, True if this delivery is dealt with."""
        run = self.running.get(delivery.prompt.generation_id)
        if run is not None:
            if run.attempt.ending:
                return False  # what it acks is settled; this one asks again and finds that it has ended
            run.delivery.messages += delivery.messages
            return True
        return await self._asking.ask(delivery)

    async def _attempt(self, delivery: Delivery, claimed: Claimed, permit: Leave) -> bool | Full:
        run = Run.begun(self._ports, delivery, claimed, permit)
        try:
            with self.running.holding(run):
                while isinstance(outcome := await self._run(run.attempt, delivery, claimed), Claimed):
                    claimed = outcome
                    await run.go_on(self._ports, claimed)
                return outcome
        finally:
            await run.attempt.close()

    async def _run(self, attempt: Attempt, delivery: Delivery, claimed: Claimed) -> bool | Full | Claimed:
        """Claimed: its answer did not fit, and this is to be the next one."""
        generation_id, number = delivery.prompt.generation_id, claimed.attempt
        tenant_id = delivery.facts.tenant_id
        model = self._ports.upstream.pool.listed(delivery.prompt.model)
        with tracing.attempting(delivery.envelope, delivery.prompt, number) as span:
            result = await attempt.run()
            tracing.came_out(span, result)
        match result:
            case Stop():
                if result is Stop.DRAINED:
                    await self._claims.release([generation_id])
                return False
            case Unstarted(full):
                attempt.ending = self._goes_elsewhere(delivery, full)
                if attempt.ending and await self._hand_on(delivery, claimed, "no_room", None):
                    return True
                await self._claims.unclaim(generation_id, number)
                return full
            case Broken():
                result.log(generation_id)
                outcomes.labels("broken").inc()
                attempt.ending = result.away
                if result.away and await self._hand_on(delivery, claimed, result.reason, result.output_tokens):
                    return True
                delivery.broken = result
                await self._claims.release([generation_id])
                return False
            case Repair():
                outcomes.labels("unfit").inc()
                used(delivery.prompt.pool, model, result.usage)
                return await insist(lambda: self._asking.repair(delivery, result)) or False
        terminal = encode(result)
        if not await insist(lambda: self._claims.end(tenant_id, generation_id, number, terminal, *attempt.leads_to)):
            return False
        await attempt.tell(terminal)
        await self._told(tenant_id, result, *delivery.messages, by=attempt)
        outcomes.labels(result.type.split(".")[1]).inc()
        assert isinstance(result.data, Terminal)
        used(delivery.prompt.pool, model, result.data.usage)
        return True

    async def _hand_on(self, delivery: Delivery, claimed: Claimed, reason: str, output_tokens: int | None) -> bool:
        handed_on = await self._asking.hand_on(delivery, claimed, reason, output_tokens)
        if handed_on:
            outcomes.labels("handed_on").inc()
            await self._ack(*delivery.messages)
        return handed_on

    async def _told(self, tenant_id: UUID, event: AnyEnvelope, *messages: Message, by: Attempt | None = None) -> None:
        """It is committed and published: ack, and only then show. Safe to repeat."""
        await self._ack(*messages)
        frame = terminal_frame(event, None if by is None else by.said)
        ended = event.data
        assert isinstance(ended, Terminal)
        self._ports.streams.append(tenant_id, ended.generation_id, frame)
        self.wake(ended.conversation_id)
        await self._signals.send(ENDED, str(ended.conversation_id))

    async def _ack(self, *messages: Message) -> None:
        try:
            await self._consumer.ack(*messages)
        except BusError as error:
            # It will be delivered again, and found to have ended.
            logger.warning("ack lost", extra={"action": "ack_lost", "cause": str(error)})

    async def _endings(self) -> None:
        async with self._signals.listen(ENDED) as conversations:
            async for conversation_id in conversations:
                with suppress(ValueError):
                    self.wake(UUID(conversation_id))

    async def _drain(self) -> None:
        self._draining = True
        self._held.wake_all()
        self._turns.let_all_go()
        if self._deliveries:
            await asyncio.wait(self._deliveries, timeout=self._settings.grace_s)
        self.running.stop_all(Stop.DRAINED)
        if self._deliveries:
            await asyncio.wait(self._deliveries, timeout=5)
