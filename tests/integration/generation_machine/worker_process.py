"""A whole worker in one of the machine's processes: the real code, put together as its ``main`` does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

from backplane.ports.token_stream import Frame
from backplane.settings import WorkerSettings
from backplane.settings.pools import PoolSettings
from backplane.telemetry.readiness import Readiness
from event_schemas import topics
from tests.data_keys import DATA_KEYS
from tests.integration.generation_machine.backend import SteppedBackend
from tests.integration.generation_machine.broker import Broker, Inbox, Letter, Mouth
from tests.integration.generation_machine.model import MOST_ATTEMPTS
from tests.integration.generation_machine.ports import ProcessDatabase, ProcessSignals, ProcessStreams
from tests.integration.generation_machine.process import Process
from tests.integration.generation_machine.world import RedisSide, World
from tests.integration.prompts import FREE
from workers.cancellation import Cancellations, follow_cancels
from workers.claims import Claims
from workers.ports import AttemptPorts
from workers.upstream import Upstream
from workers.worker import Worker

LEASE_S = 3600.0
"""Long, by the database's clock: no lease ends unless a rule lets time pass."""
HEARTBEAT_S = LEASE_S / 4
GRACE_S = 10.0


class WorkerProcess(Process):
    def __init__(
        self,
        name: str,
        world: World,
        side: RedisSide,
        broker: Broker,
        backend: SteppedBackend,
        before_publish: Callable[[str, bytes], Awaitable[None]],
        before_frame: Callable[[UUID, Frame], None],
    ) -> None:
        super().__init__(name)
        self._broker = broker
        self._buried = False
        loop = world.loop
        database, publisher = ProcessDatabase(world.work, self, loop), Mouth(broker, self, before_publish)
        streams = ProcessStreams(side.writer, self, loop, before_frame)
        signals = ProcessSignals(side.signals, self, loop)
        claims, readiness = Claims(database, name, LEASE_S), Readiness()
        settings = WorkerSettings(lease_s=LEASE_S, max_attempts=MOST_ATTEMPTS, grace_s=GRACE_S, emit_every_s=0.25)
        self._commands, self._control = Inbox(broker, self), Inbox(broker, self)
        upstream = Upstream(backend, PoolSettings(backend="scripted"))
        ports = AttemptPorts(upstream, FREE, publisher, streams, database, DATA_KEYS)
        worker = Worker(name, 2, settings, claims, self._commands, ports, signals, readiness)
        cancellations = Cancellations(name, claims, FREE, self._control, publisher, streams, signals, readiness)
        self._stop = asyncio.Event()
        self._main = asyncio.create_task(worker.run(self._stop))
        self._beside = [
            asyncio.create_task(cancellations.run()),
            asyncio.create_task(follow_cancels(signals, worker.running.cancel)),
        ]

    @property
    def running(self) -> bool:
        return not self.dead and not self._main.done()

    @property
    def gone(self) -> bool:
        """It ended, and was not buried yet."""
        return not self._buried and not self.running

    @property
    def leaving(self) -> bool:
        return self._stop.is_set()

    def deliver(self, letter: Letter) -> None:
        (self._control if letter.topic == topics.CONTROL else self._commands).put(letter)

    def terminate(self) -> None:
        """SIGTERM."""
        self._stop.set()

    async def bury(self) -> None:
        """Of a process that ended: let go of its tasks and of what was delivered to it. Raises what ended it."""
        if self._buried:
            return
        for task in (self._main, *self._beside):
            task.cancel()
        ends = await asyncio.gather(self._main, *self._beside, return_exceptions=True)
        self.dead = self._buried = True
        self._broker.give_back(self.name)
        for end in ends:
            if isinstance(end, Exception):
                raise end
