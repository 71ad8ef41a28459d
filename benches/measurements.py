"""What a run found."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, Field

from benches.burst import Burst
from benches.bus import Bus
from benches.delivery import Deliveries
from benches.driver import Outcome
from benches.lag import Lag
from benches.load import Load
from benches.machine import Machine
from benches.processes import Memory
from benches.record import Record

CLIENT = "client"
"""The group of the load process; where nothing is between, the backend is in it."""

BROKER = "broker"
"""The Pulsar broker, which is no process of Parley's."""


class Measured(BaseModel):
    """One load on one backend."""

    model_config = ConfigDict(frozen=True)

    outcome: Outcome
    cpu_s: dict[str, float] = Field(description="CPU seconds in the window, by process")
    elsewhere_s: float = Field(description="CPU seconds that the machine spent on other things in the window")
    memory: dict[str, Memory] = Field(description="at the end of the window, by process")
    lag: Lag | None = Field(description="of the projections; none where there are none")


class Level(BaseModel):
    model_config = ConfigDict(frozen=True)

    load: Load
    direct: Measured
    parley: Measured


class BusRun(BaseModel):
    """All that was measured on one bus."""

    model_config = ConfigDict(frozen=True)

    bus: Bus
    deliveries: Deliveries
    record: Record
    idle_cpu: dict[str, float] = Field(description="CPU seconds a second while nobody asks, by process")
    idle_memory: dict[str, Memory]
    levels: list[Level]
    burst: Burst
    deaths: list[str] = Field(description="what was said of servers and services that died")

    @property
    def ours(self) -> list[str]:
        """The processes that `parley up` started, in order."""
        return sorted(name for name in self.idle_cpu if name != BROKER)

    @property
    def wrong(self) -> Iterator[str]:
        yield from self.deaths
        yield from self.deliveries.wrong
        yield from self.record.wrong
        yield from (f"burst: {line}" for line in self.burst.completeness.wrong)
        for level in self.levels:
            for where, measured in (("direct", level.direct), ("Parley", level.parley)):
                yield from (f"{level.load.name}, {where}: {line}" for line in measured.outcome.completeness.wrong)


class Run(BaseModel):
    model_config = ConfigDict(frozen=True)

    machine: Machine
    buses: list[BusRun]

    @property
    def wrong(self) -> list[str]:
        """Why its figures are not to be believed."""
        return [f"{run.bus.label}: {line}" for run in self.buses for line in run.wrong]

    def levels(self) -> Iterator[tuple[BusRun, Level]]:
        """Load by load, the buses of each side by side."""
        for at in range(len(self.buses[0].levels) if self.buses else 0):
            for bus_run in self.buses:
                yield bus_run, bus_run.levels[at]
