"""Every server and service as a process of its own, kept running by the supervisor of `parley up`, to be killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from uuid import UUID

import pytest

from backplane.settings import Settings
from backplane.telemetry.status import ASKED_FOR
from backplane.wiring.embedded import embedded_postgres, embedded_valkey, service_environment
from backplane.wiring.operations import set_up
from cli import tenancy
from cli.child import Launch, Program
from cli.process import SUPERVISED
from cli.programs import server_program
from cli.restart import Backoff
from cli.supervisor import Supervisor
from tests.chaos import journalled_worker
from tests.ports import lasting_ports

WORKERS = 3
SLOTS = 100
BROKER = "pulsar"
_ROOT = Path(__file__).parents[2]


class Broker(Protocol):
    """A Pulsar broker that a test may kill."""

    @property
    def environment(self) -> dict[str, str]: ...

    def kill(self) -> None: ...

    def start(self) -> None: ...


@dataclass(frozen=True)
class Tenant:
    id: UUID
    key: str


@dataclass(frozen=True)
class Killed:
    at: datetime
    victim: str
    hit: bool
    """False: it was down at that moment, so there was nobody to kill."""

    def __str__(self) -> str:
        return f"{self.at:%H:%M:%S.%f} kill -9 {self.victim}{'' if self.hit else ', which was down'}"


class House:
    """What runs, where it answers, and what was killed."""

    def __init__(self, folder: Path, settings: Settings, broker: Broker | None, tell: Diary) -> None:
        self.folder = folder
        self.settings = settings
        self.commands_url, self.queries_url = (f"http://127.0.0.1:{port}" for port in lasting_ports(2))
        self.tenants: list[Tenant] = []
        self.killed: list[Killed] = []
        self.journals = folder / "journals"
        self.journals.mkdir()
        self._broker = broker
        self._broker_starts: asyncio.Task[None] | None = None
        self._tell = tell
        # A service that comes back at once is there to be killed again.
        self._supervisor = Supervisor(settings.data_dir / "logs", tell, backoff=lambda: Backoff(0.05, 0.05))

    @property
    def victims(self) -> list[str]:
        """As often as they are to be killed, so that some are killed again before they are back.

        The broker half as often as the others: it takes several times as long to come back, and nothing is done
        meanwhile.
        """
        names = [child.program.name for child in self._supervisor.children]
        return [*names, *names, *([] if self._broker is None else [BROKER])]

    @property
    def works(self) -> bool:
        """Everything is up. Raises where the broker did not come back."""
        return self._broker_works and all(child.works for child in self._supervisor.children)

    @property
    def _broker_works(self) -> bool:
        if self._broker_starts is None:
            return True
        if self._broker_starts.done():
            self._broker_starts.result()
        return self._broker_starts.done()

    async def start(self, tenants: int) -> None:
        for server in (embedded_postgres(self.settings), embedded_valkey(self.settings)):
            assert server is not None
            await self._supervisor.start(server_program(server))
        await set_up(self.settings)
        for number in range(tenants):
            tenant_id = await tenancy.create_tenant(self.settings, f"tenant {number}")
            self.tenants.append(Tenant(tenant_id, await tenancy.issue_key(self.settings, tenant_id, "admin")))
        await asyncio.gather(*(self._supervisor.start(program) for program in self._services()))

    def kill(self, victim: str) -> None:
        """kill -9; whoever keeps it starts it again at once."""
        at = datetime.now(UTC)
        killed = Killed(at, victim, self._kill_broker() if victim == BROKER else self._kill_child(victim))
        self._tell.line(str(killed).partition(" ")[2])
        self.killed.append(killed)

    async def stop(self) -> None:
        if self._broker_starts is not None:
            await asyncio.gather(self._broker_starts, return_exceptions=True)
        await self._supervisor.stop()

    def _kill_child(self, name: str) -> bool:
        child = next(child for child in self._supervisor.children if child.program.name == name)
        pid = child.pid
        if pid is None:
            return False
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # it ended on its own a moment ago
            return False
        return True

    def _kill_broker(self) -> bool:
        if self._broker is None or not self._broker_works:
            return False
        self._broker.kill()
        self._broker_starts = asyncio.create_task(self._start_broker(self._broker))
        return True

    async def _start_broker(self, broker: Broker) -> None:
        await asyncio.to_thread(broker.start)
        self._tell.line(f"{BROKER} works again")

    def _services(self) -> list[Program]:
        parley = ("-P", "-m", "cli.main")
        worker = ("-m", journalled_worker.__name__)
        return [
            self._service("projections", (*parley, "projections"), ("projections",)),
            *(self._service(f"worker-{number}", worker, ("worker",)) for number in range(1, WORKERS + 1)),
            self._service("command-api", (*parley, "command-api"), ("command_api", "relay"), self.commands_url),
            self._service("query-api", (*parley, "query-api"), ("query_api",), self.queries_url),
        ]

    def _service(self, name: str, arguments: Sequence[str], roles: Sequence[str], url: str | None = None) -> Program:
        environment = {
            **os.environ,
            **service_environment(self.settings, roles, authenticates=url is not None),
            "PYTHONPATH": str(_ROOT),
            journalled_worker.FOLDER: str(self.journals),
            ASKED_FOR: "1",
            SUPERVISED: "1",
        }
        if url is not None:
            environment["PARLEY_PORT"] = url.rpartition(":")[2]

        async def launch() -> Launch:
            return Launch((sys.executable, *arguments), environment, self.folder)

        return Program(name, launch)


class Diary:
    """Everything that the supervisor says, with the time, in one file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def line(self, text: str) -> None:
        with self._file.open("a") as stream:
            stream.write(f"{datetime.now(UTC):%H:%M:%S.%f} {text}\n")

    def progress(self, source: str, what: str, share: float) -> None:
        pass

    def done(self, source: str) -> None:
        pass


@asynccontextmanager
async def running(
    folder: Path, environment: pytest.MonkeyPatch, broker: Broker | None, tenants: int
) -> AsyncIterator[House]:
    """A house in ``folder``. ``environment`` is that of this process, since services inherit it."""
    for name in [name for name in os.environ if name.startswith("PARLEY_")]:
        environment.delenv(name)
    pool = {"backend": "scripted", "models": ["script"], "slots": SLOTS}
    chosen = {
        "PARLEY_DATA_DIR": str(folder / "data"),
        "PARLEY_POOLS": json.dumps({"local": pool}),
        # What a kill leaves behind is taken over soon, and so often that giving up is the exception.
        "PARLEY_BUS__LEASE_S": "2",
        "PARLEY_WORKER__LEASE_S": "2",
        "PARLEY_WORKER__MAX_ATTEMPTS": "8",
        **({} if broker is None else broker.environment),
    }
    for name, value in chosen.items():
        environment.setenv(name, value)
    # None of the developer's own settings, which stand in the working directory.
    environment.chdir(folder)
    house = House(folder, Settings(), broker, Diary(folder / "diary.log"))
    try:
        await house.start(tenants)
        yield house
    finally:
        await house.stop()
