"""A whole run: one bus after the other, first its servers alone, then a whole Parley."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import psutil

from backplane.ports.bus import Publisher
from backplane.settings import PulsarSettings
from backplane.wiring.operations import operator_bus, set_up
from benches.burst import Burst, BurstOrder
from benches.bus import Bus
from benches.child import LoadFailed, child, line_of
from benches.delivery import Deliveries, DeliveryOrder
from benches.driver import Outcome, Said
from benches.installation import POOL, Installation
from benches.lag import Lag, behind, caught_up
from benches.load import Load, Order, Target
from benches.machine import machine
from benches.measurements import BROKER, CLIENT, BusRun, Level, Measured, Run
from benches.parley import Parley, running
from benches.plan import PROMPT_TOKENS, Plan
from benches.processes import Groups, Memory
from benches.record import Record, measure_record
from benches.server import Broker, running_alone, running_server
from event_schemas.topics import all_topics

IDLE_S = 3.0
_DIRECT_S = 4.0
_SPARE_SLOTS = 64

Tell = Callable[[str], None]


async def measure(plan: Plan, folder: Path, tell: Tell) -> Run:
    """All of ``plan``, with data in ``folder``. ``tell`` is told what is done next, once for each of its steps.

    Raises NotStarted, LoadFailed, CommandError, and what the bus and the database raise.
    """
    here = machine()
    return Run(machine=here, buses=[await _on(bus, plan, folder / bus.value, tell) for bus in plan.buses])


async def _on(bus: Bus, plan: Plan, folder: Path, tell: Tell) -> BusRun:
    if bus is Bus.postgres:
        return await BusBench(bus, plan, folder, lambda what: tell(f"{bus.label}: {what}")).measure()
    tell("starting a Pulsar broker (the first time ever, this fetches 235 MB)")
    deaths: list[str] = []
    broker = Broker(folder / "broker")
    async with running_server(broker.server, folder / "logs", deaths) as pid:
        bench = BusBench(bus, plan, folder, lambda what: tell(f"{bus.label}: {what}"), broker, pid)
        result = await bench.measure()
    return result.model_copy(update={"deaths": result.deaths + deaths})


class BusBench:
    """All measurements on one bus."""

    def __init__(
        self, bus: Bus, plan: Plan, folder: Path, tell: Tell, broker: Broker | None = None, pid: int = 0
    ) -> None:
        self._bus = bus
        self._plan = plan
        self._folder = folder
        self._tell = tell
        self._broker = broker
        self._broker_groups = Groups({} if broker is None else {BROKER: psutil.Process(pid)})
        self._slots = max(load.clients for load in plan.loads) + _SPARE_SLOTS

    async def measure(self) -> BusRun:
        deaths: list[str] = []
        try:
            deliveries, record = await self._servers_alone(deaths)
            return await self._whole(deliveries, record, deaths)
        except psutil.NoSuchProcess as gone:
            raise LoadFailed(f"a process that is measured is gone: {gone}") from None

    async def _servers_alone(self, deaths: list[str]) -> tuple[Deliveries, Record]:
        installation = self._installation("alone")
        self._tell("starting its servers alone")
        async with running_alone(installation.settings, deaths) as pid:
            await set_up(installation.settings)
            self._tell(f"{self._plan.messages} messages, one after another")
            order = DeliveryOrder(messages=self._plan.messages)
            async with child("benches.delivery", order, installation.environment) as process:
                deliveries = Deliveries.model_validate_json(await line_of(process))
            groups = self._broker_groups.with_("postgres", pid)
            events = self._plan.events
            return deliveries, await measure_record(installation, groups, events // 4, events, self._tell)

    async def _whole(self, deliveries: Deliveries, record: Record, deaths: list[str]) -> BusRun:
        installation = self._installation("whole")
        self._tell("starting Parley")
        async with running(installation) as parley:
            target = await parley.target()
            groups = parley.groups().and_(self._broker_groups)
            self._tell("Parley, idle")
            idle_cpu = await idle(groups)
            idle_memory = groups.memory()
            async with operator_bus(installation.settings) as bus:
                levels = [await self._level(load, target, groups, bus) for load in self._plan.loads]
            self._tell("accepting prompts")
            found = await self._burst(parley, target)
            self._tell("stopping Parley")
        return BusRun(
            bus=self._bus,
            deliveries=deliveries,
            record=record,
            idle_cpu=idle_cpu,
            idle_memory=idle_memory,
            levels=levels,
            burst=found,
            deaths=deaths + parley.deaths,
        )

    def _installation(self, name: str) -> Installation:
        """One of its own; in the broker that is a namespace of its own."""
        pulsar: PulsarSettings | None = None if self._broker is None else self._broker.namespace(name)
        return Installation.make(self._folder / name, self._slots, pulsar)

    async def _level(self, load: Load, target: Target, groups: Groups, bus: Publisher) -> Level:
        self._tell(f"{load.name}: the backend alone")
        short = load.model_copy(update={"seconds": min(load.seconds, _DIRECT_S)})
        direct = await measured(Order(load=short, target=None), Groups({}), None)
        self._tell(f"{load.name}: Parley")
        return Level(load=load, direct=direct, parley=await measured(Order(load=load, target=target), groups, bus))

    async def _burst(self, parley: Parley, target: Target) -> Burst:
        order = BurstOrder(target=target, seconds=self._plan.burst_s, tokens=PROMPT_TOKENS)
        with contextlib.ExitStack() as stack:
            stack.enter_context(parley.nobody_works())
            async with child("benches.burst", order) as process:
                await line_of(process)
                stack.close()
                return Burst.model_validate_json(await line_of(process))


async def idle(groups: Groups) -> dict[str, float]:
    """CPU seconds a second of each while nobody asks. Raises psutil.NoSuchProcess."""
    before = groups.read()
    await asyncio.sleep(IDLE_S)
    return {name: seconds / IDLE_S for name, seconds in groups.read().since(before).items()}


async def measured(order: Order, groups: Groups, bus: Publisher | None) -> Measured:
    """One load; ``bus`` tells how far the projections are behind, None where nothing is projected.

    Raises LoadFailed, BusUnavailable, psutil.NoSuchProcess where a process of ``groups`` is gone.
    """
    topics = all_topics([POOL])
    async with child("benches.driver", order) as process:
        groups = groups.with_(CLIENT, process.pid)
        opened = closed = groups.read()
        left, catching_up = 0, None
        adding_up: asyncio.Task[dict[str, Memory]] | None = None
        outcome: Outcome | None = None
        while outcome is None:
            said = Said.model_validate_json(await line_of(process))
            if said.what == "opened":
                opened = groups.read()
            elif said.what == "closed":
                closed = groups.read()
                # Adding it up takes a while, and the load ends meanwhile.
                adding_up = asyncio.create_task(asyncio.to_thread(groups.memory))
                left = 0 if bus is None else await behind(bus, topics)
            elif said.what == "ended" and bus is not None:
                catching_up = asyncio.create_task(caught_up(bus, topics))
            outcome = said.outcome
        assert adding_up is not None
        return Measured(
            outcome=outcome,
            cpu_s=closed.since(opened),
            elsewhere_s=closed.elsewhere_since(opened),
            memory=await adding_up,
            lag=None if catching_up is None else Lag(behind=left, caught_up_s=await catching_up),
        )
