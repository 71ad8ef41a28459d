"""The bus contract: the same tests for every adapter."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import asyncpg
import pytest

from backplane.ports.bus import Bus
from tests.conftest import PostgresServer
from tests.contract.bus.harness import LEASE_S, BusSpec, Child
from tests.pulsar_broker import PulsarBroker

PARTITIONS = 4


@pytest.fixture(scope="session", params=["postgres", pytest.param("pulsar", marks=pytest.mark.pulsar)])
def bus_spec(request: pytest.FixtureRequest) -> BusSpec:
    """A running bus of each adapter, shared by the tests: each has topics of its own."""
    url: str = request.getfixturevalue(f"{request.param}_bus_url")
    return BusSpec(adapter=request.param, url=url)


@pytest.fixture(scope="session")
def postgres_bus_url(postgres_server: PostgresServer, migrated_template: str) -> str:
    async def make() -> None:
        connection = await asyncpg.connect(postgres_server.owner_url())
        await connection.execute(f"CREATE DATABASE bus_contract TEMPLATE {migrated_template}")
        await connection.close()

    asyncio.run(make())
    return postgres_server.role_url("worker", "bus_contract")


@pytest.fixture(scope="session")
def pulsar_bus_url(shared_broker: PulsarBroker) -> str:
    return f"{shared_broker.url} {shared_broker.admin_url}"


BusFactory = Callable[..., Bus]


@pytest.fixture
async def bus_factory(bus_spec: BusSpec) -> AsyncIterator[BusFactory]:
    """Opens connections to the bus, as several processes would; ``lease_s`` may be given."""
    opened: list[Bus] = []

    def open_bus(lease_s: float = LEASE_S) -> Bus:
        opened.append(replace(bus_spec, lease_s=lease_s).open())
        return opened[-1]

    yield open_bus
    for bus in opened:
        await bus.close()


@pytest.fixture
def bus(bus_factory: BusFactory) -> Bus:
    return bus_factory()


@pytest.fixture
async def topic(bus: Bus) -> str:
    """A topic of four partitions."""
    name = f"t-{uuid.uuid4().hex}"
    await bus.create_topics([name], partitions=PARTITIONS)
    return name


@pytest.fixture
async def narrow(bus: Bus) -> str:
    """A topic of one partition."""
    name = f"n-{uuid.uuid4().hex}"
    await bus.create_topics([name], partitions=1)
    return name


@pytest.fixture
async def children(bus_spec: BusSpec) -> AsyncIterator[Children]:
    made = Children(bus_spec)
    yield made
    for child in made.started:
        await child.kill()


class Children:
    """Starts processes that use the bus; those still running are killed after the test."""

    def __init__(self, spec: BusSpec) -> None:
        self.spec = spec
        self.started: list[Child] = []

    async def start(self, **task: object) -> Child:
        child = await Child.start(self.spec, **task)
        self.started.append(child)
        return child
