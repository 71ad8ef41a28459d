"""How long a light tenant's prompts wait beside another tenant's flood: `python -m benches --only fairness`.

A flood fills the lanes of its tenant, two of the topic's partitions; other tenants differ by how many lanes they share
with it. The same flood in a topic of one partition is answered first in, first out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from backplane.settings import BusSettings
from benches.bus import Bus
from benches.fairness_load import Light, flood
from benches.fairness_parley import SLOTS, WORKER_COUNT, Crowded, crowded
from benches.figures import Spread
from benches.installation import Installation
from benches.load import Target
from benches.machine import Machine, machine
from benches.server import Broker, running_server

_WARM_UP = 4 * WORKER_COUNT * SLOTS

Tell = Callable[[str], None]


class FairnessPlan(BaseModel):
    model_config = ConfigDict(frozen=True)

    buses: list[Bus]
    flood: int = Field(description="prompts that one tenant has accepted before any other one asks")
    prompts: int = Field(description="of each light tenant")
    every_s: float = Field(description="seconds from one prompt of a light tenant to its next one")

    @property
    def steps(self) -> int:
        """How often a run tells what it does."""
        pulsar = 1 if Bus.pulsar in self.buses else 0
        return pulsar + 9 * len(self.buses)


def fairness_plan(buses: Sequence[Bus]) -> FairnessPlan:
    return FairnessPlan(buses=list(buses), flood=1000, prompts=12, every_s=0.5)


def quick_fairness(buses: Sequence[Bus]) -> FairnessPlan:
    """All of it, but too little for figures."""
    return FairnessPlan(buses=list(buses), flood=100, prompts=2, every_s=0.1)


class Beside(BaseModel):
    """Light tenants beside one flood."""

    model_config = ConfigDict(frozen=True)

    waits: dict[int, Spread | None] = Field(
        description="from the 202 to the first token, by how many lanes a tenant shares with the flood's"
    )
    before: int = Field(description="the flood's prompts that waited when the first one of the others was asked")
    after: int = Field(description="the same, when the last one was asked")


class BusFairness(BaseModel):
    model_config = ConfigDict(frozen=True)

    bus: Bus
    partitions: int
    alone: Spread | None = Field(description="a light tenant's wait while nobody else asks")
    beside: Beside
    in_order: Beside = Field(description="in one partition, the lane of everybody")
    wrong: list[str]


class FairnessRun(BaseModel):
    model_config = ConfigDict(frozen=True)

    machine: Machine
    plan: FairnessPlan
    buses: list[BusFairness]

    @property
    def wrong(self) -> list[str]:
        """Why its figures are not to be believed."""
        return [f"{found.bus.label}: {line}" for found in self.buses for line in found.wrong]


async def measure_fairness(plan: FairnessPlan, folder: Path, tell: Tell) -> FairnessRun:
    """All of ``plan``, with data in ``folder``. ``tell`` is told what is done next, once for each of its steps.

    Raises NotStarted, LoadFailed, CommandError, and what the bus and the database raise.
    """
    here = machine()
    buses = [await _on(bus, plan, folder / bus.value, tell) for bus in plan.buses]
    return FairnessRun(machine=here, plan=plan, buses=buses)


async def _on(bus: Bus, plan: FairnessPlan, folder: Path, tell: Tell) -> BusFairness:
    if bus is Bus.postgres:
        return await _BusBench(bus, plan, folder, tell).measure()
    tell("starting a Pulsar broker (the first time ever, this fetches 235 MB)")
    deaths: list[str] = []
    broker = Broker(folder / "broker")
    async with running_server(broker.server, folder / "logs", deaths):
        found = await _BusBench(bus, plan, folder, tell, broker).measure()
    return found.model_copy(update={"wrong": found.wrong + deaths})


class _BusBench:
    """All of it on one bus."""

    def __init__(self, bus: Bus, plan: FairnessPlan, folder: Path, tell: Tell, broker: Broker | None = None) -> None:
        self._bus = bus
        self._plan = plan
        self._folder = folder
        self._tell_all = tell
        self._broker = broker
        self._wrong: list[str] = []

    async def measure(self) -> BusFairness:
        partitions = BusSettings().partitions
        self._tell(f"starting Parley, {partitions} partitions")
        async with crowded(self._installation("lanes", partitions), self._wrong) as parley:
            await self._warmed(parley)
            self._tell("a light tenant alone")
            alone = self._light(parley.light[min(parley.light)])
            await self._followed(alone)
            beside = await self._beside(parley)
            self._tell("stopping Parley")
        self._tell("starting Parley, 1 partition")
        async with crowded(self._installation("order", 1), self._wrong) as parley:
            await self._warmed(parley)
            in_order = await self._beside(parley)
            self._tell("stopping Parley")
        return BusFairness(
            bus=self._bus,
            partitions=partitions,
            alone=alone.wait,
            beside=beside,
            in_order=in_order,
            wrong=self._wrong,
        )

    def _installation(self, name: str, partitions: int) -> Installation:
        pulsar = None if self._broker is None else self._broker.namespace(name)
        settings = Installation.make(self._folder / name, SLOTS, pulsar).settings
        bus = settings.bus.model_copy(update={"partitions": partitions})
        return Installation(settings.model_copy(update={"bus": bus}))

    async def _beside(self, parley: Crowded) -> Beside:
        plan = self._plan
        self._tell(f"{plan.flood} prompts at once")
        await flood(parley.flood, plan.flood)
        self._tell("light tenants beside them")
        light = {shared: self._light(target) for shared, target in parley.light.items()}
        before = await parley.backlog()
        left = asyncio.create_task(self._left(parley, list(light.values())))
        await asyncio.gather(left, *(self._followed(each) for each in light.values()))
        after = left.result()
        if after <= WORKER_COUNT * SLOTS:
            self._wrong.append(f"{after} prompts of the flood were left when the last other one was asked")
        return Beside(waits={shared: each.wait for shared, each in light.items()}, before=before, after=after)

    async def _left(self, parley: Crowded, light: Sequence[Light]) -> int:
        """Of the flood, once the light tenants have asked for the last time."""
        await asyncio.sleep((self._plan.prompts - 1) * self._plan.every_s)
        return await parley.backlog() - sum(each.under_way for each in light)

    async def _warmed(self, parley: Crowded) -> None:
        """Every worker has answered something, and every light tenant was known before."""
        await flood(parley.flood, _WARM_UP)
        await asyncio.gather(*(self._followed(Light(target, 1, 0)) for target in parley.light.values()))
        await parley.idle()

    async def _followed(self, light: Light) -> None:
        await light.ask()
        self._wrong += light.wrong

    def _tell(self, what: str) -> None:
        self._tell_all(f"{self._bus.label}: {what}")

    def _light(self, target: Target) -> Light:
        return Light(target, self._plan.prompts, self._plan.every_s)
