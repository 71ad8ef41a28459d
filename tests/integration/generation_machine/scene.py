"""One example: the prompts of a tenant, two workers, who follows, and the model that watches all of it."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import asyncpg

from backplane.ports.identifiers import new_id
from backplane.ports.token_stream import Cursor, Frame
from backplane.security.principal import Principal
from command_api.outbox import Relay
from event_schemas import topics
from event_schemas.codec import decode, encode
from event_schemas.generation import SubmitPrompt, Terminal
from event_schemas.payload import AboutGeneration
from projections.batch import Batch
from projections.event_log import Received
from query_api.service import QueryPorts
from tests.data_keys import DATA_KEYS
from tests.integration.generation_machine.backend import SteppedBackend
from tests.integration.generation_machine.broker import Broker, Letter, Mouth
from tests.integration.generation_machine.client import Client
from tests.integration.generation_machine.model import Generation, Model
from tests.integration.generation_machine.ports import NoKeys, ProcessDatabase, Streams
from tests.integration.generation_machine.process import Process
from tests.integration.generation_machine.said import Said
from tests.integration.generation_machine.worker_process import WorkerProcess
from tests.integration.generation_machine.world import World
from tests.integration.prompts import POOL, SPARE, envelope, wish
from tests.integration.sealed_prompts import SealedPrompts
from tests.integration.test_authenticator import LocalSignals

COMMANDS = topics.commands(POOL)
SPARE_COMMANDS = topics.commands(SPARE)
TOPICS = topics.all_topics([POOL, SPARE])


class Scene:
    def __init__(self, world: World) -> None:
        self.world = world
        self.tenant_id = new_id()
        self.backend = SteppedBackend()
        self.model = Model(self.backend, SealedPrompts(world.execute))
        self.said = Said(self.model, self.backend)
        self.broker = Broker(self._acked)
        self.processes: list[WorkerProcess] = []
        self.clients: list[Client] = []
        self.letters: dict[UUID, list[Letter]] = {}
        """Commands to run a generation, of which there may be several, and to cancel it."""
        self._slots: dict[str, WorkerProcess] = {}
        self._projected: dict[str, int] = {}
        self._acked_early: list[tuple[Generation, int]] = []
        """Prompts that were acked before their ending was published, and how often they had been handed on."""
        self._changes = 0
        self._heard = 0
        system = Process("system")
        self._batch = Batch(ProcessDatabase(world.projections, system, world.loop))
        mouth = Mouth(self.broker, system, self._publishing)
        self._relay = Relay(ProcessDatabase(world.relay, system, world.loop), mouth)
        self._queries = QueryPorts(
            ProcessDatabase(world.queries, system, world.loop),
            Streams(world.sides["queries"].reader, world.loop),
            NoKeys(),
            LocalSignals(),
            DATA_KEYS,
            self.broker,
            mouth,
            TOPICS,
            read_your_writes_s=2.0,
        )
        self._principal = Principal(self.tenant_id, new_id(), None, "admin")
        world.loop.set_exception_handler(
            lambda _, context: self.model.violations.append(f"{context['message']}: {context.get('exception')!r}")
        )

    async def open(self) -> None:
        await self.world.execute("DELETE FROM control.outbox")
        # The bus begins anew with each example.
        await self.world.execute("DELETE FROM read_models.positions")
        await self.backend.start(lambda what, share: None)

    # What rules do

    async def submit(self, prompt: SubmitPrompt) -> None:
        prompt = await self.model.sealed.seal(prompt, self.tenant_id)
        self.model.generations[prompt.generation_id] = Generation(prompt)
        command = encode(envelope(prompt, self.tenant_id))
        self.letters[prompt.generation_id] = [self.broker.append(COMMANDS, command)]

    def repeat(self, generation_id: UUID) -> Letter:
        """The command API publishes the same command again, as it does for a repeated request."""
        payload = self.broker.message(self.letters[generation_id][0]).payload
        self.letters[generation_id].append(self.broker.append(COMMANDS, payload))
        return self.letters[generation_id][-1]

    def cancel(self, generation_id: UUID) -> Letter:
        one = self.model.generations[generation_id]
        one.cancel_wanted = True
        command = encode(envelope(wish(one.prompt), self.tenant_id))
        self.letters[generation_id].append(self.broker.append(topics.CONTROL, command))
        return self.letters[generation_id][-1]

    def worker(self, slot: str) -> WorkerProcess:
        """Who takes what is delivered to this slot; a new process where the last one is gone or leaving."""
        process = self._slots.get(slot)
        if process is None or not process.running or process.leaving:
            name = f"{slot}{len(self.processes)}"
            side = self.world.sides[slot]
            process = WorkerProcess(name, self.world, side, self.broker, self.backend, self._publishing, self._showing)
            self._slots[slot] = process
            self.processes.append(process)
        return process

    def deliver(self, letter: Letter, slot: str) -> None:
        process = self.worker(slot)
        data = decode(self.broker.message(letter).payload).data
        if isinstance(data, SubmitPrompt):
            self.model.generations[data.generation_id].delivered_to.add(process.name)
        process.deliver(letter)

    async def expire(self, generation_id: UUID) -> None:
        """Its worker was away for too long to renew the lease."""
        await self.world.execute(
            "UPDATE work.claims SET lease_until = clock_timestamp() - interval '1 s'"
            " WHERE generation_id = $1 AND terminal IS NULL AND lease_until > clock_timestamp()",
            generation_id,
        )

    async def pass_time(self, seconds: float) -> None:
        """For everybody: Postgres' clock and the processes' own."""
        await self.world.execute(
            "UPDATE work.claims SET lease_until = lease_until - $1::interval WHERE tenant_id = $2 AND terminal IS NULL",
            *(timedelta(seconds=seconds), self.tenant_id),
        )
        self.world.loop.pass_time(seconds)

    async def project(self, topic: str, most: int) -> None:
        """The projections apply so many more messages of a topic."""
        behind = self._projected.get(topic, 0)
        messages = self.broker.log[topic][behind : behind + most]
        if messages:
            received = [Received(decode(message.payload), message.payload) for message in messages]
            await self._batch.apply(received, messages)
            self._projected[topic] = behind + len(messages)

    async def relay(self) -> None:
        await self._relay.publish_some()

    def follower(self, generation_id: UUID, cursor: Cursor | None) -> Client:
        """One who was told everything up to ``cursor``."""
        client = Client(self.model, generation_id, cursor)
        self.clients.append(client)
        return client

    def connect(self, client: Client) -> None:
        """Follow from where it was cut off, or from the beginning."""
        client.connect(self._queries, self._principal)

    # What is seen of it

    async def settled(self) -> None:
        """Let everything go as far as it goes by itself, and hold it against the model."""
        await self.world.settled()
        while gone := [process for process in self.processes if process.gone]:
            for process in gone:
                await process.bury()
            await self.world.settled()
        for change in await self.world.changes(self.tenant_id, self._changes):
            self._changes += 1
            self.model.changed(change)
        for one, times in self._acked_early:
            self.model.check(one.handed_on > times, "acked before its ending was published", one)
        self._acked_early.clear()
        for message in self.broker.log[topics.EVENTS][self._heard :]:
            self._heard += 1
            self.said.take(message.payload)
        for client in self.clients:
            client.check()
        assert not self.backend.run_twice, "an attempt ran twice"
        assert not self.model.violations, "\n".join(self.model.violations)

    async def stored(self, table: str, generation_id: UUID) -> list[asyncpg.Record]:
        """What a read model has of a generation; of the messages, the answer."""
        column = "id" if table == "messages" else "generation_id"
        return await self.world.fetch(f"SELECT * FROM read_models.{table} WHERE {column} = $1", generation_id)

    async def held(self) -> list[UUID]:
        """Generations whose lease has not run out."""
        rows = await self.world.fetch(
            "SELECT generation_id FROM work.claims WHERE tenant_id = $1 AND lease_until > clock_timestamp()",
            self.tenant_id,
        )
        return [row["generation_id"] for row in rows]

    def unprojected(self) -> int:
        """Messages that the projections have not passed yet."""
        return sum(len(self.broker.log[topic]) - self._projected.get(topic, 0) for topic in TOPICS)

    async def close(self) -> None:
        for client in self.clients:
            await client.cut()
        for process in self.processes:
            process.crash()
            await process.bury()
        await self.backend.close()

    async def _publishing(self, topic: str, payload: bytes) -> None:
        data = decode(payload).data
        if isinstance(data, SubmitPrompt):
            # It was handed on, and is appended next.
            self.letters[data.generation_id].append(Letter(topic, len(self.broker.log[topic])))
        if isinstance(data, Terminal):
            rows = await self.world.fetch(
                "SELECT terminal FROM work.claims WHERE generation_id = $1", data.generation_id
            )
            one = self.model.generations[data.generation_id]
            committed = [row["terminal"] for row in rows]
            self.model.check(committed == [payload], "an ending was published that is not committed", one)

    def _acked(self, payload: bytes) -> None:
        data = decode(payload).data
        assert isinstance(data, AboutGeneration)
        if isinstance(data, SubmitPrompt):
            one = self.model.generations[data.generation_id]
            if not self._is_published(one):
                self._acked_early.append((one, len(data.fell_back)))

    def _showing(self, generation_id: UUID, frame: Frame) -> None:
        if frame.kind.terminal:
            one = self.model.generations[generation_id]
            self.model.check(self._is_published(one), "its ending was shown before it was published", one)

    def _is_published(self, one: Generation) -> bool:
        said = (decode(message.payload).data for message in self.broker.log[topics.EVENTS])
        return any(isinstance(data, Terminal) and data.generation_id == one.id for data in said)
