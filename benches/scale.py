"""`python -m benches.scale`: what more workers of a pool bring, and what a prompt and a token cost the servers.

The backend pauses between tokens, so that slots are the bound and not the machine: what the same two cores can compute
says nothing about a cluster, what stays flat and what grows does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import psutil
import typer

from backplane.ports.bus import Bus as Published
from backplane.settings import Settings
from backplane.wiring.operations import operator_bus
from benches.bus import Bus, missing
from benches.claim_probe import probing_claims
from benches.figures import Spread, spread
from benches.installation import POOL, Installation, apart
from benches.lag import caught_up
from benches.load import Load, Order, Target
from benches.machine import machine
from benches.measurements import CLIENT, Measured
from benches.more_workers import more_workers
from benches.parley import running
from benches.processes import Groups
from benches.report import machine_lines
from benches.run import idle, measured
from benches.server import Broker, running_server
from benches.stores import Stores, stores_of
from benches.tables import UNKNOWN, ms, number, table
from event_schemas.topics import all_topics

WORKERS = (1, 2, 4)
DELAY_S = 0.02
TOKENS = 50
SHORT, LONG = 50, 250
"""Tokens of the answers of two loads, from which a prompt's costs and a token's are told apart."""

_CPU = "CPU, ms: "

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class Level:
    """A load with twice as many clients as there are slots."""

    workers: int
    slots: int
    """Of all of them."""
    load: Measured
    claims: Spread | None

    @property
    def cores(self) -> dict[str, float]:
        """CPU seconds a second, by process."""
        seconds = self.load.outcome.figures.seconds
        return {name: used / seconds for name, used in self.load.cpu_s.items() if name != CLIENT}


@dataclass(frozen=True, slots=True)
class Cost:
    """What two loads cost that differ in the length of their answers; ``sums`` has prompts, tokens, and each figure."""

    short: dict[str, float]
    long: dict[str, float]
    prompts: tuple[float, float]
    tokens: tuple[float, float]

    def of(self, name: str) -> tuple[float, float]:
        """A prompt's and a token's: ``used = prompts * x + tokens * y``, of both loads."""
        (p, q), (t, u) = self.prompts, self.tokens
        used, other = self.short[name], self.long[name]
        common = p * u - q * t
        return (used * u - other * t) / common, (p * other - q * used) / common


@app.command()
def scale(
    seconds: Annotated[float, typer.Option(min=1, max=600, help="How long each load is measured.")] = 10.0,
    slots: Annotated[int, typer.Option(min=1, max=64, help="Of each worker, at 50 tokens a second each.")] = 4,
    bus: Annotated[Bus, typer.Option(help="Which bus.")] = Bus.postgres,
) -> None:
    """Throughput of a pool with 1, 2 and 4 workers, and what Postgres, Redis and each process need: tables to print."""
    if bus is Bus.pulsar and missing():
        raise typer.BadParameter(f"a Pulsar broker needs {' and '.join(missing())}")
    here = machine()
    with apart() as folder:
        levels, store_cost, cpu_cost, wrong = asyncio.run(_on(bus, folder, slots, seconds))
    typer.echo("\n".join(machine_lines(here)))
    typer.echo(f"{bus.label}; {seconds:g} s a load; {slots} slots a worker, {1 / DELAY_S:g} tokens/s a slot\n")
    typer.echo("\n".join([*_level_table(levels), *_cpu_table(levels), *_cost_table(store_cost, cpu_cost)]))
    for line in wrong:
        typer.echo(f"wrong: {line}", err=True)
    raise typer.Exit(1 if wrong else 0)


Found = tuple[list[Level], Cost, Cost, list[str]]


async def _on(bus: Bus, folder: Path, slots: int, seconds: float) -> Found:
    if bus is Bus.postgres:
        return await _measure(Installation.make(folder, slots, None), Groups({}), slots, seconds)
    deaths: list[str] = []
    broker = Broker(folder / "broker")
    async with running_server(broker.server, folder / "logs", deaths) as pid:
        installation = Installation.make(folder / "parley", slots, broker.namespace("scale"))
        servers = Groups({"broker": psutil.Process(pid)})
        levels, store_cost, cpu_cost, wrong = await _measure(installation, servers, slots, seconds)
    return levels, store_cost, cpu_cost, wrong + deaths


async def _measure(installation: Installation, servers: Groups, slots: int, seconds: float) -> Found:
    settings = installation.settings
    wrong: list[str] = []
    levels: list[Level] = []
    async with running(installation) as parley, operator_bus(settings) as bus:
        target = await parley.target()
        groups = parley.groups().and_(servers)
        for workers in WORKERS:
            async with more_workers(installation, POOL, workers - 1, wrong):
                level = await _level(settings, target, _with_workers(groups), bus, workers, workers * slots, seconds)
            levels.append(level)
            wrong += level.load.outcome.completeness.wrong
        async with more_workers(installation, POOL, WORKERS[-1] - 1, wrong), stores_of(settings) as stores:
            costs = _Costs(_with_workers(groups), bus, stores, target, WORKERS[-1] * slots, seconds)
            store_cost, cpu_cost = await costs.measure(wrong)
    return levels, store_cost, cpu_cost, wrong + parley.deaths


async def _level(
    settings: Settings, target: Target, groups: Groups, bus: Published, workers: int, slots: int, seconds: float
) -> Level:
    load = Load(clients=2 * slots, tokens=TOKENS, delay_s=DELAY_S, seconds=seconds)
    async with probing_claims(settings) as probe:
        found = await measured(Order(load=load, target=target), groups, bus)
    return Level(workers, slots, found, spread(probe.seconds))


def _with_workers(groups: Groups) -> Groups:
    """And those beside the one that `parley up` started."""
    beside = (child.pid for child in psutil.Process().children() if "worker" in child.cmdline())
    for place, pid in enumerate(beside, start=2):
        groups = groups.with_(f"worker {place}", pid)
    return groups


@dataclass(frozen=True, slots=True)
class _Costs:
    """Measures loads of as many clients as there are slots: nothing waits, and no probe asks for claims."""

    _groups: Groups
    _bus: Published
    _stores: Stores
    _target: Target
    _slots: int
    _seconds: float

    async def measure(self, wrong: list[str]) -> tuple[Cost, Cost]:
        """Of the stores, all that a load changed by all that it asked for; of CPU, its window's."""
        idle_cpu = await idle(self._groups)
        (short, used), (long, used_by_long) = [await self._load(tokens) for tokens in (SHORT, LONG)]
        for each in (short, long):
            wrong += each.outcome.completeness.wrong
        answers = (short.outcome.completeness.answers, long.outcome.completeness.answers)
        figures = (short.outcome.figures, long.outcome.figures)
        return (
            Cost(used, used_by_long, answers, (answers[0] * SHORT, answers[1] * LONG)),
            Cost(
                _beyond(idle_cpu, short),
                _beyond(idle_cpu, long),
                (figures[0].requests, figures[1].requests),
                (figures[0].tokens, figures[1].tokens),
            ),
        )

    async def _load(self, tokens: int) -> tuple[Measured, dict[str, float]]:
        load = Load(clients=self._slots, tokens=tokens, delay_s=DELAY_S, seconds=self._seconds)
        before = await self._stores.read()
        found = await measured(Order(load=load, target=self._target), self._groups, self._bus)
        await caught_up(self._bus, all_topics([POOL]))
        after = await self._stores.read()
        return found, {name: after[name] - before[name] for name in after}


def _beyond(idle_cpu: Mapping[str, float], load: Measured) -> dict[str, float]:
    """Milliseconds of CPU by process, of all workers together, without those of a Parley that nobody asks."""
    seconds = load.outcome.figures.seconds
    beyond: dict[str, float] = {}
    for name, used in load.cpu_s.items():
        if name in idle_cpu:
            kind = "workers" if name.startswith("worker") else name
            beyond[kind] = beyond.get(kind, 0.0) + (used - idle_cpu[name] * seconds) * 1000
    return beyond


def _level_table(levels: list[Level]) -> list[str]:
    head = (
        *("workers", "slots", "answers/s", "tokens/s", "of the slots'", "202, ms, p50", "p99", "claim, ms, p50", "p99"),
        *("events behind", "caught up, s"),
    )
    rows = []
    for level in levels:
        figures, lag = level.load.outcome.figures, level.load.lag
        assert lag is not None
        rows.append(
            (
                str(level.workers),
                str(level.slots),
                number(figures.requests_per_s),
                number(figures.tokens_per_s),
                f"{figures.tokens_per_s * DELAY_S / level.slots:.0%}",
                *ms(figures.accepted, "p50", "p99"),
                *ms(level.claims, "p50", "p99"),
                str(lag.behind),
                UNKNOWN if lag.caught_up_s is None else number(lag.caught_up_s),
            )
        )
    return table("A pool of 1, 2 and 4 workers", head, rows, words=0)


def _cpu_table(levels: list[Level]) -> list[str]:
    names = sorted({name for level in levels for name in level.cores})
    rows = [
        (name, *(number(level.cores[name]) if name in level.cores else UNKNOWN for level in levels)) for name in names
    ]
    head = ("cores that are busy", *(f"{level.workers} worker{'s' * (level.workers > 1)}" for level in levels))
    return table("CPU by process", head, rows, words=1)


def _cost_table(store_cost: Cost, cpu_cost: Cost) -> list[str]:
    rows = [(name, *map(number, store_cost.of(name))) for name in store_cost.short]
    rows += [(_CPU + name, *(f"{each:.3f}" for each in cpu_cost.of(name))) for name in sorted(cpu_cost.short)]
    return table("What is paid for a prompt and for a token", ("", "a prompt", "a token"), rows, words=1)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        app()
