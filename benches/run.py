"""A whole run: Parley idle, then each load, first on the backend alone and then on Parley."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Sequence

import psutil
from pydantic import BaseModel, ConfigDict, Field

from benches.driver import Outcome, Said
from benches.load import Load, Order
from benches.machine import Machine, machine
from benches.parley import running
from benches.processes import Groups, Memory

CLIENT = "client"
"""The group of the load process; where nothing is between, the backend is in it."""

IDLE_S = 3.0
_DIRECT_S = 4.0
_SPARE_SLOTS = 64

Tell = Callable[[str], None]


class LoadFailed(Exception):
    """The load process ended without an outcome, or a process that is measured is gone."""


class Measured(BaseModel):
    """One load on one backend."""

    model_config = ConfigDict(frozen=True)

    outcome: Outcome
    cpu_s: dict[str, float] = Field(description="CPU seconds in the window, by process")
    elsewhere_s: float = Field(description="CPU seconds that the machine spent on other things in the window")
    memory: dict[str, Memory] = Field(description="at the end of the window, by process")


class Level(BaseModel):
    model_config = ConfigDict(frozen=True)

    load: Load
    direct: Measured
    parley: Measured


class Run(BaseModel):
    model_config = ConfigDict(frozen=True)

    machine: Machine
    idle_cpu: dict[str, float] = Field(description="CPU seconds a second while nobody asks, by process")
    idle_memory: dict[str, Memory]
    levels: list[Level]
    deaths: list[str] = Field(description="what `parley up` said of children that died")

    @property
    def wrong(self) -> list[str]:
        """Why its figures are not to be believed."""
        return self.deaths + [
            f"{level.load.name}, {where}: {line}"
            for level in self.levels
            for where, measured in (("direct", level.direct), ("Parley", level.parley))
            for line in measured.outcome.completeness.wrong
        ]


async def measure(loads: Sequence[Load], tell: Tell) -> Run:
    """``tell`` is told what is done next, once for each of `steps`. Raises NotStarted, LoadFailed."""
    here = machine()
    tell("starting Parley")
    async with running(max(load.clients for load in loads) + _SPARE_SLOTS) as parley:
        target = await parley.target()
        groups = parley.groups()
        tell("Parley, idle")
        idle_cpu = await _idle(groups)
        idle_memory = groups.memory()
        levels = []
        for load in loads:
            tell(f"{load.name}: the backend alone")
            short = load.model_copy(update={"seconds": min(load.seconds, _DIRECT_S)})
            direct = await _measured(Order(load=short, target=None), Groups({}))
            tell(f"{load.name}: Parley")
            levels.append(
                Level(load=load, direct=direct, parley=await _measured(Order(load=load, target=target), groups))
            )
        tell("stopping Parley")
    return Run(machine=here, idle_cpu=idle_cpu, idle_memory=idle_memory, levels=levels, deaths=parley.deaths)


def steps(loads: Sequence[Load]) -> int:
    """How often `measure` tells what it does."""
    return 3 + 2 * len(loads)


async def _idle(groups: Groups) -> dict[str, float]:
    before = groups.read()
    await asyncio.sleep(IDLE_S)
    return {name: seconds / IDLE_S for name, seconds in groups.read().since(before).items()}


async def _measured(order: Order, groups: Groups) -> Measured:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "benches.driver",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(order.model_dump_json().encode() + b"\n")
        await process.stdin.drain()
        groups = groups.with_(CLIENT, process.pid)
        opened = groups.read()
        closed, memory = opened, groups.memory()
        async for line in process.stdout:
            said = Said.model_validate_json(line)
            if said.what == "opened":
                opened = groups.read()
            elif said.what == "closed":
                closed, memory = groups.read(), groups.memory()
            elif said.outcome is not None:
                return Measured(
                    outcome=said.outcome,
                    cpu_s=closed.since(opened),
                    elsewhere_s=closed.elsewhere_since(opened),
                    memory=memory,
                )
        raise LoadFailed(f"the load process ended with exit code {await process.wait()}, see its error above")
    except psutil.NoSuchProcess as gone:
        raise LoadFailed(f"a process that is measured is gone: {gone}") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
