"""What becomes of many events, and nothing else: `python -m benches --only record --events 1000000`.

Everything is measured with a tenth of them and with all, so that what grows with the record shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, Field

from backplane.wiring.operations import set_up
from benches.bus import Bus
from benches.event_tables import record_tables
from benches.installation import Installation
from benches.machine import Machine, machine
from benches.measurements import BROKER
from benches.processes import Groups
from benches.record import Record, measure_record
from benches.report import machine_lines
from benches.server import Broker, running_alone, running_server

_SLOTS = 1
"""Nobody asks."""

Tell = Callable[[str], None]


class RecordPlan(BaseModel):
    model_config = ConfigDict(frozen=True)

    buses: list[Bus]
    events: int = Field(description="a tenth of them first")

    @property
    def steps(self) -> int:
        """How often a run tells what it does."""
        pulsar = 1 if Bus.pulsar in self.buses else 0
        return pulsar + 5 * len(self.buses)


def record_plan(buses: Sequence[Bus], events: int) -> RecordPlan:
    return RecordPlan(buses=list(buses), events=events)


class BusRecord(BaseModel):
    model_config = ConfigDict(frozen=True)

    bus: Bus
    record: Record
    deaths: list[str] = Field(description="what was said of servers that died")


class RecordRun(BaseModel):
    model_config = ConfigDict(frozen=True)

    machine: Machine
    plan: RecordPlan
    buses: list[BusRecord]

    @property
    def wrong(self) -> list[str]:
        """Why its figures are not to be believed."""
        return [f"{found.bus.label}: {line}" for found in self.buses for line in (*found.deaths, *found.record.wrong)]


def record_markdown(run: RecordRun) -> str:
    """All of it, with a heading a table."""
    return "\n".join([*machine_lines(run.machine), *record_tables(run.buses)])


async def measure_record_alone(plan: RecordPlan, folder: Path, tell: Tell) -> RecordRun:
    """All of ``plan``, with data in ``folder``. ``tell`` is told what is done next, once for each of its steps.

    Raises LoadFailed, and what the bus and the database raise.
    """
    here = machine()
    return RecordRun(
        machine=here, plan=plan, buses=[await _on(bus, plan, folder / bus.value, tell) for bus in plan.buses]
    )


async def _on(bus: Bus, plan: RecordPlan, folder: Path, tell: Tell) -> BusRecord:
    if bus is Bus.postgres:
        return await _measured(bus, plan, folder, tell, None, Groups({}))
    tell("starting a Pulsar broker (the first time ever, this fetches 235 MB)")
    deaths: list[str] = []
    broker = Broker(folder / "broker")
    async with running_server(broker.server, folder / "logs", deaths) as pid:
        groups = Groups({BROKER: psutil.Process(pid)})
        found = await _measured(bus, plan, folder, tell, broker, groups)
    return found.model_copy(update={"deaths": found.deaths + deaths})


async def _measured(
    bus: Bus, plan: RecordPlan, folder: Path, tell: Tell, broker: Broker | None, groups: Groups
) -> BusRecord:
    pulsar = None if broker is None else broker.namespace("record")
    installation = Installation.make(folder / "record", _SLOTS, pulsar)
    deaths: list[str] = []
    tell(f"{bus.label}: starting its servers")
    async with running_alone(installation.settings, deaths) as pid:
        await set_up(installation.settings)
        record = await measure_record(
            installation,
            groups.with_("postgres", pid),
            plan.events // 10,
            plan.events,
            lambda what: tell(f"{bus.label}: {what}"),
        )
    return BusRecord(bus=bus, record=record, deaths=deaths)
