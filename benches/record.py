"""What becomes of events: projected from the bus into read models, and replayed from the record."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import orjson
from pydantic import BaseModel, ConfigDict, Field

from backplane.ports.database import Database
from backplane.security.content import opened_row
from backplane.telemetry.status import ASKED_FOR
from backplane.wiring.embedded import owner_database
from backplane.wiring.operations import operator_bus
from benches.backlog import EVENTS_A_GENERATION, Backlog, words_of
from benches.child import LoadFailed, child, line_of
from benches.installation import Installation
from benches.processes import Groups, Memory
from benches.rebuilder import Rebuilding, RebuildOrder
from projections.batch import READ_MODELS
from projections.catalog import EVENT_LOG, MODELS

PROJECTIONS = "projections"
_POLL_S = 0.05
_STALLED_S = 60.0
_EXIT_S = 30.0
_SAID = re.compile(r"^(\w+): (?:rebuilt from|equals the record \()\s*(\d+) lines", re.MULTILINE)


class Projected(BaseModel):
    """A backlog that waited while no projections ran."""

    model_config = ConfigDict(frozen=True)

    events: int
    publish_s: float = Field(description="seconds in which they were published, many at a time")
    seconds: float = Field(description="from when the projections have joined until the last event is in the record")
    cpu_s: dict[str, float] = Field(description="CPU seconds meanwhile, by process")
    memory: dict[str, Memory]

    @property
    def events_per_s(self) -> float:
        return self.events / self.seconds


class Rebuilt(BaseModel):
    """One `parley rebuild`."""

    model_config = ConfigDict(frozen=True)

    name: str
    record: int = Field(description="lines that the record had")
    lines: int = Field(description="lines that were read: all of the record for each read model")
    seconds: float
    peak_rss: int

    @property
    def lines_per_s(self) -> float:
        return self.lines / self.seconds


class Record(BaseModel):
    model_config = ConfigDict(frozen=True)

    projected: list[Projected] = Field(description="the first part of the events, then the others")
    rebuilt: list[Rebuilt] = Field(description="with the first part of the record, then with the whole")
    wrong: list[str]


async def measure_record(
    installation: Installation, groups: Groups, first: int, events: int, tell: Callable[[str], None]
) -> Record:
    """All of it with the ``first`` events, then with all ``events``. ``groups`` has the servers. ``tell`` is told four
    times what is done next. Raises LoadFailed, and what the bus and the database raise."""
    backlog = Backlog()
    part = max(1, first // EVENTS_A_GENERATION)
    rest = max(1, events // EVENTS_A_GENERATION - part)
    database = owner_database(installation.settings)
    orders = [RebuildOrder(model="all", check=check) for check in (False, True)]
    orders.append(RebuildOrder(model=EVENT_LOG, check=True))
    each = [RebuildOrder(model=model, check=False) for model in MODELS if model != EVENT_LOG]
    projected: list[Projected] = []
    rebuilt: list[Rebuilt] = []
    wrong: list[str] = []
    try:
        async with _projections(installation):
            pass  # it has counted the limits now, for which the next ones need not read the bus before they are ready
        for generations, wanted in ((part, orders), (rest, [*orders, *each])):
            tell(f"projecting {generations * EVENTS_A_GENERATION} events")
            projected.append(await _project(installation, database, groups, backlog, generations))
            wrong += await differences(database, backlog)
            lines = len(backlog.generations) * EVENTS_A_GENERATION
            tell(f"rebuilding from {lines} lines")
            for order in wanted:
                rebuilt.append(await _rebuild(installation, order, lines, wrong))
    finally:
        await database.close()
    return Record(projected=projected, rebuilt=rebuilt, wrong=wrong)


async def differences(database: Database, backlog: Backlog) -> list[str]:
    """A line for each generation whose answer is not stored as it was published."""
    async with database.system() as session:
        rows = await session.all(
            f"SELECT id, answer FROM {READ_MODELS}.messages WHERE role = 'assistant' AND status = 'completed'"  # noqa: S608
        )
    keys = backlog.generations
    stored = {row["id"]: opened_row(row["answer"], keys[row["id"]])["text"] for row in rows if row["id"] in keys}
    return [
        f"generation {each}: {'not stored as it was published' if each in stored else 'not stored as completed'}"
        for each in backlog.generations
        if stored.get(each) != "".join(words_of(each))
    ]


async def _project(
    installation: Installation, database: Database, groups: Groups, backlog: Backlog, generations: int
) -> Projected:
    began = time.monotonic()
    async with operator_bus(installation.settings) as bus:
        await backlog.publish(bus, generations)
    publish_s = time.monotonic() - began
    events = generations * EVENTS_A_GENERATION
    before = await _lines(database)
    async with _projections(installation) as process:
        groups = groups.with_(PROJECTIONS, process.pid)
        opened, began = groups.read(), time.monotonic()
        await _until(database, before + events, process)
        seconds = time.monotonic() - began
        closed, memory = groups.read(), groups.memory()
    return Projected(events=events, publish_s=publish_s, seconds=seconds, cpu_s=closed.since(opened), memory=memory)


@asynccontextmanager
async def _projections(installation: Installation) -> AsyncIterator[Process]:
    """`parley projections`, from when it has joined its subscription. Raises LoadFailed."""
    log = installation.settings.data_dir / "projections.log"
    with log.open("ab") as stream:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "cli.main", "projections"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=stream,
            env={**installation.environment, ASKED_FOR: "1"},
        )
    try:
        while not orjson.loads(await line_of(process)).get("ready"):
            pass
        yield process
        process.terminate()
        async with asyncio.timeout(_EXIT_S):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _until(database: Database, lines: int, process: Process) -> None:
    """Return once the record has ``lines``. Raises LoadFailed where it does not grow any more."""
    newest, since = -1, time.monotonic()
    while (now := await _lines(database)) < lines:
        if now > newest:
            newest, since = now, time.monotonic()
        if process.returncode is not None:
            raise LoadFailed(f"`parley projections` ended with exit code {process.returncode}")
        if time.monotonic() - since > _STALLED_S:
            raise LoadFailed(f"the record stays at {now} of {lines} lines")
        await asyncio.sleep(_POLL_S)


async def _lines(database: Database) -> int:
    async with database.system() as session:
        row = await session.one(f"SELECT coalesce(sum(sequence), 0) AS lines FROM {READ_MODELS}.tenant_heads")  # noqa: S608
    assert row is not None
    return int(row["lines"])


async def _rebuild(installation: Installation, order: RebuildOrder, record: int, wrong: list[str]) -> Rebuilt:
    async with child("benches.rebuilder", order, installation.environment) as process:
        output, _ = await process.communicate()
    said, _, last = output.decode().rstrip().rpartition("\n")
    if process.returncode != 0:
        raise LoadFailed(f"`parley rebuild {order.name}` ended with exit code {process.returncode}, see above")
    result = Rebuilding.model_validate_json(last)
    told = {model: int(lines) for model, lines in _SAID.findall(said)}
    wanted = [order.model] if order.model != "all" else [model for model in MODELS if order.check or model != EVENT_LOG]
    if result.exit_code != 0 or told != dict.fromkeys(wanted, record):
        wrong.append(f"`parley rebuild {order.name}` of {record} lines: exit code {result.exit_code}: {said}")
    return Rebuilt(
        name=order.name,
        record=record,
        lines=record * len(wanted),
        seconds=result.seconds,
        peak_rss=result.peak_rss,
    )
