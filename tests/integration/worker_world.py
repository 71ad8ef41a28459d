"""A worker in this process, on a real bus (Postgres, or Pulsar) and a real Valkey, with the scripted backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.adapters.postgres_bus.bus import PostgresBus
from backplane.adapters.pulsar_bus import PulsarAddress, PulsarBus
from backplane.adapters.redis.hub import Hub
from backplane.adapters.redis.reader import RedisStreamReader
from backplane.adapters.redis.signals import RedisSignals
from backplane.adapters.redis.writer import RedisStreamWriter
from backplane.ports import suspensions
from backplane.ports.bus import Bus, Message, Mode, Start
from backplane.ports.identifiers import new_id
from backplane.settings import WorkerSettings
from backplane.settings.pools import PoolSettings
from backplane.telemetry.readiness import Readiness
from command_api.outbox import Relay
from event_schemas import topics
from event_schemas.chat import AnswerContent
from event_schemas.codec import AnyEnvelope, decode, encode
from event_schemas.generation import SubmitPrompt, Terminal
from tests.conftest import TestDatabase
from tests.data_keys import DATA_KEYS
from tests.integration.prompts import FREE, POOL, SPARE, envelope, wish
from tests.integration.sealed_prompts import SealedPrompts
from workers.cancellation import Cancellations, follow_cancels
from workers.claims import Claims
from workers.inference.port import KeepsStates
from workers.inference.scripted import ScriptedBackend
from workers.ports import AttemptPorts
from workers.sources.resolving import Sources
from workers.state_files import StateFiles
from workers.suspension import Suspension
from workers.upstream import Upstream
from workers.worker import Worker

COMMANDS = topics.commands(POOL)
LEASE_S = 0.8
DEADLINE_S = 20.0


class RunningWorker:
    def __init__(self, name: str, worker: Worker, task: asyncio.Task[None], stop: asyncio.Event) -> None:
        self.name = name
        self.worker = worker
        self.task = task
        self._stop = stop

    async def drain(self) -> None:
        """SIGTERM."""
        self._stop.set()
        await asyncio.wait_for(self.task, DEADLINE_S)

    async def vanish(self) -> None:
        """kill -9, as far as one process can do it to a part of itself: nothing is released."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class WorkerWorld:
    def __init__(self, database: TestDatabase, redis_url: str, pulsar: PulsarAddress | None = None) -> None:
        self._database = database
        self._redis_url = redis_url
        self.tenant_id = new_id()
        self._pulsar = pulsar
        self.bus = self._bus(database.owner_url)
        self.owner: asyncpg.Connection[asyncpg.Record]
        self.sealed: SealedPrompts
        self._workers: list[RunningWorker] = []
        self._open: list[Callable[[], Awaitable[None]]] = []

    async def __aenter__(self) -> WorkerWorld:
        self.owner = await asyncpg.connect(self._database.owner_url)
        self.sealed = SealedPrompts(self.owner.execute)
        live = topics.all_topics([POOL, SPARE])
        await self.bus.create_topics([*live, *map(topics.dead_letters, live)], partitions=2)
        await self.bus.ensure_subscription(
            [COMMANDS, topics.commands(SPARE), topics.CONTROL], topics.WORKERS, Start.EARLIEST
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        for worker in self._workers:
            await worker.vanish()
        for close in reversed(self._open):
            await close()
        await self.bus.close()
        await self.owner.close()

    async def worker(
        self,
        name: str,
        *,
        pool: str = POOL,
        slots: int = 4,
        redis_url: str | None = None,
        signals: bool = True,
        upstream: Upstream | None = None,
        sources: Sources | None = None,
        states: tuple[KeepsStates, StateFiles] | None = None,
        **settings: Any,
    ) -> RunningWorker:
        """Start a worker. Without ``signals`` it hears of a cancel by its heartbeat only; without ``upstream`` it runs
        the scripted backend. ``states`` are the engine of ``upstream`` and its files."""
        url = redis_url or self._redis_url
        bus = self._bus(self._database.role_url("worker"))
        database = PostgresDatabase(self._database.role_url("worker"), pool_size=4)
        hub = Hub(url)
        streams, reader = RedisStreamWriter(url), RedisSignals(url, hub)
        self._open += [bus.close, database.close, hub.close, streams.close, reader.close]
        if upstream is None:
            backend = ScriptedBackend(slots=slots)
            await backend.start(lambda what, share: None)
            upstream = Upstream(backend, PoolSettings(backend="scripted"))
        readiness, claims = Readiness(), Claims(database, name, LEASE_S)
        suspension = None if states is None else Suspension(*states, database, DATA_KEYS)
        commands = await bus.subscribe([topics.commands(pool)], topics.WORKERS, Mode.SHARED, prefetch=slots)
        control = await bus.subscribe([topics.CONTROL], topics.WORKERS, Mode.SHARED, prefetch=4)
        worker = Worker(
            name,
            slots,
            WorkerSettings(lease_s=LEASE_S, **{"max_attempts": 3, "grace_s": 5.0, "emit_every_s": 0.05} | settings),
            claims,
            commands,
            AttemptPorts(upstream, FREE, bus, streams, database, DATA_KEYS, sources, suspension),
            reader,
            readiness,
        )
        cancellations = Cancellations(name, claims, FREE, control, bus, streams, reader, readiness)
        stop = asyncio.Event()

        async def run() -> None:
            beside = [asyncio.create_task(cancellations.run())]
            if signals:
                beside.append(asyncio.create_task(follow_cancels(reader, worker.running.cancel)))
            if suspension is not None:
                beside.append(asyncio.create_task(suspension.follow(reader)))
            try:
                await worker.run(stop)
            finally:
                for task in beside:
                    task.cancel()
                await asyncio.gather(*beside, return_exceptions=True)

        running = RunningWorker(name, worker, asyncio.create_task(run()), stop)
        self._workers.append(running)
        return running

    async def relay(self) -> None:
        """Publish what stands in the outbox now."""
        database = PostgresDatabase(self._database.role_url("relay"), pool_size=1)
        try:
            while await Relay(database, self.bus).publish_some():
                pass
        finally:
            await database.close()

    def _bus(self, url: str) -> Bus:
        if self._pulsar is None:
            return PostgresBus(url, lease_s=LEASE_S)
        return PulsarBus(self._pulsar, watch_s=0.2, timeout_s=5.0)

    async def submit(self, prompt: SubmitPrompt, *, times: int = 1) -> AnyEnvelope:
        command = envelope(await self.sealed.seal(prompt, self.tenant_id), self.tenant_id)
        for _ in range(times):
            await self.bus.publish(COMMANDS, encode(command))
        return command

    async def cancel(self, prompt: SubmitPrompt) -> None:
        await self.bus.publish(topics.CONTROL, encode(envelope(wish(prompt), self.tenant_id)))

    async def suspend(self, conversation_id: UUID) -> None:
        """As the command API says it of a conversation."""
        hub = Hub(self._redis_url)
        signals = RedisSignals(self._redis_url, hub)
        await suspensions.announce(signals, self.tenant_id, conversation_id)
        await signals.close()
        await hub.close()

    async def messages(self, topic: str) -> list[Message]:
        found: list[Message] = []
        for partition in range(2):
            found += await self.bus.read(topic, partition, after=None, limit=10_000)
        return found

    async def events(self, prompt: SubmitPrompt) -> list[AnyEnvelope]:
        """What was published about this prompt, repeats of one event dropped."""
        said = [decode(message.payload) for message in await self.messages(topics.EVENTS)]
        unique = {event.id: event for event in said if event.subject == prompt.subject()}
        return list(unique.values())

    def answer(self, ended: AnyEnvelope) -> AnswerContent:
        """What was answered in the end."""
        assert isinstance(ended.data, Terminal)
        return self.sealed.answer(ended.data)

    async def until(self, holds: Callable[[], Awaitable[bool]], what: str) -> None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not await holds():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"not within {DEADLINE_S} s: {what}") from None

    async def ended(self, prompt: SubmitPrompt) -> AnyEnvelope:
        """The terminal event, once it is published; there is exactly one."""
        found: list[AnyEnvelope] = []

        async def terminal() -> bool:
            found[:] = [event for event in await self.events(prompt) if _is_terminal(event)]
            return bool(found)

        await self.until(terminal, f"generation {prompt.generation_id} ended")
        assert len(found) == 1, [event.type for event in found]
        return found[0]

    async def tokens(self, prompt: SubmitPrompt) -> int:
        """How many tokens stand in the stream."""
        async with self.reader() as reader:
            frames = await reader.backlog(self.tenant_id, prompt.generation_id)
        return max((frame.seq for frame in frames), default=0)

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[RedisStreamReader]:
        hub = Hub(self._redis_url)
        reader = RedisStreamReader(self._redis_url, hub)
        try:
            yield reader
        finally:
            await reader.close()
            await hub.close()


def _is_terminal(event: AnyEnvelope) -> bool:
    return isinstance(event.data, Terminal)
