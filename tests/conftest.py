"""Real servers for the tests: one embedded Postgres and one embedded Valkey for each test process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import asyncpg
import hypothesis
import pytest
import redis
from xdist.remote import Producer

from backplane.adapters.embedded.account import Command
from backplane.adapters.embedded.postgres import OWNER, EmbeddedPostgres
from backplane.adapters.embedded.valkey import EmbeddedValkey
from backplane.adapters.postgres.migrate import migrate
from tests.scheduling import SharedServers

pytest_plugins = ("tests.pulsar_broker",)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> SharedServers:
    return SharedServers(config, log)


def pytest_configure() -> None:
    # How long an example takes says nothing of it: others run beside it.
    hypothesis.settings.register_profile("parley", deadline=None)
    hypothesis.settings.load_profile("parley")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell that runs us in the background has us ignore it, and so would all that a test starts and interrupts.
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    chaos = parser.getgroup("chaos", "kill -9 at random (tests/chaos)")
    chaos.addoption("--chaos-seconds", type=float, default=25.0, help="how long processes are killed")
    chaos.addoption("--chaos-seed", type=int, default=None, help="replays the kills of a run that named it")


ROLES = ("command_api", "query_api", "worker", "projections", "relay")
PASSWORD = "only-in-tests"


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder whose path leaves room for sockets."""
    with tempfile.TemporaryDirectory(prefix="parley-test-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


class Server:
    """A child process that a test may kill and start again."""

    def __init__(self, command: Command, answers: Callable[[], None], stop_signal: signal.Signals) -> None:
        self._command = command
        self._answers = answers
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._command.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command.argv,
                cwd=self._command.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self._command.uid,
                group=self._command.gid,
                extra_groups=None if self._command.uid is None else [],
                start_new_session=True,
            )
        deadline = time.monotonic() + 100
        while True:
            try:
                return self._answers()
            except Exception:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise RuntimeError(f"{self._command.argv[0]}: {self._command.log.read_text()[-2000:]}") from None
                time.sleep(0.02)

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """kill -9, of every process of the server."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(self._stop_signal)
            self._process.wait(timeout=30)


@dataclass(frozen=True)
class PostgresServer:
    server: Server
    embedded: EmbeddedPostgres

    def owner_url(self, database: str = "postgres") -> str:
        return self.embedded.url(OWNER, PASSWORD).replace("/postgres?", f"/{database}?")

    def role_url(self, role: str, database: str) -> str:
        return self.embedded.url(f"parley_{role}", PASSWORD).replace("/postgres?", f"/{database}?")


def start_postgres(data_dir: Path) -> PostgresServer:
    embedded = EmbeddedPostgres(data_dir)
    embedded.prepare(PASSWORD)

    async def connect() -> None:
        await (await asyncpg.connect(embedded.url(OWNER, PASSWORD), timeout=2)).close()

    command = embedded.command()
    # What kill -9 leaves in the page cache survives without fsync; only a crash of the machine would tell.
    command = replace(command, argv=(*command.argv, "-c", "fsync=off"))
    server = Server(command, lambda: asyncio.run(connect()), signal.SIGINT)
    server.start()
    return PostgresServer(server, embedded)


@pytest.fixture(scope="session")
def postgres_server(short_folder: Path) -> Iterator[PostgresServer]:
    running = start_postgres(short_folder / "shared")
    yield running
    running.server.stop()


@dataclass(frozen=True)
class TestDatabase:
    """A freshly migrated database of its own."""

    __test__ = False
    server: PostgresServer
    name: str

    @property
    def owner_url(self) -> str:
        return self.server.owner_url(self.name)

    def role_url(self, role: str) -> str:
        return self.server.role_url(role, self.name)


@pytest.fixture(scope="session")
def migrated_template(postgres_server: PostgresServer) -> str:
    """A migrated database that tests' own databases are copied from."""

    async def make() -> None:
        connection = await asyncpg.connect(postgres_server.owner_url())
        await connection.execute("CREATE DATABASE template_parley")
        await connection.close()
        await migrate(postgres_server.owner_url("template_parley"), dict.fromkeys(ROLES, PASSWORD))

    asyncio.run(make())
    return "template_parley"


@pytest.fixture
async def database(postgres_server: PostgresServer, migrated_template: str) -> AsyncIterator[TestDatabase]:
    name = f"t{uuid.uuid4().hex}"
    connection = await asyncpg.connect(postgres_server.owner_url())
    try:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {migrated_template}")
        yield TestDatabase(postgres_server, name)
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await connection.close()


@dataclass(frozen=True)
class ValkeyServer:
    server: Server
    url: str


def start_valkey(data_dir: Path) -> ValkeyServer:
    embedded = EmbeddedValkey(data_dir)
    embedded.prepare()

    def ping() -> None:
        with redis.Redis.from_url(embedded.url) as client:
            client.ping()

    server = Server(embedded.command(), ping, signal.SIGTERM)
    server.start()
    return ValkeyServer(server, embedded.url)


@pytest.fixture(scope="session")
def valkey_server(short_folder: Path) -> Iterator[ValkeyServer]:
    running = start_valkey(short_folder / "shared")
    yield running
    running.server.stop()
