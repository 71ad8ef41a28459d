"""Postgres is killed with -9 under publishers and consumers, and comes back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from backplane.adapters.postgres.migrate import migrate
from backplane.adapters.postgres_bus import PostgresBus
from backplane.ports.bus import BusUnavailable, Mode, Start
from tests.conftest import PASSWORD, ROLES, PostgresServer, start_postgres
from tests.contract.bus.harness import collect, eventually, payloads


@pytest.fixture(scope="module")
def own_server(short_folder: Path) -> Iterator[PostgresServer]:
    """A server that these tests may kill."""
    running = start_postgres(short_folder / "outage")
    asyncio.run(migrate(running.owner_url(), dict.fromkeys(ROLES, PASSWORD)))
    yield running
    running.server.stop()


@pytest.fixture
async def bus(own_server: PostgresServer) -> AsyncIterator[PostgresBus]:
    made = PostgresBus(own_server.role_url("worker", "postgres"), lease_s=1.0)
    yield made
    await made.close()


async def restart(server: PostgresServer) -> None:
    server.server.kill()
    await asyncio.to_thread(server.server.start)


async def test_what_was_confirmed_survives_whatever_the_servers_default(
    bus: PostgresBus, own_server: PostgresServer
) -> None:
    await bus.create_topics(["durable"], partitions=1)
    owner = await asyncpg.connect(own_server.owner_url())
    await owner.execute("ALTER DATABASE postgres SET synchronous_commit = off")
    await owner.close()
    careful = PostgresBus(own_server.role_url("command_api", "postgres"))
    try:
        for number in range(50):
            await careful.publish("durable", str(number).encode())
            if number in (10, 49):
                await restart(own_server)
    finally:
        await careful.close()
    assert payloads(await bus.read("durable", 0, after=None, limit=100)) == [str(n).encode() for n in range(50)]


@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.value)
async def test_messages_in_flight_survive(bus: PostgresBus, own_server: PostgresServer, mode: Mode) -> None:
    topic = f"flight-{mode.value}"
    await bus.create_topics([topic], partitions=3)
    await bus.ensure_subscription([topic], "s", Start.EARLIEST)
    other = PostgresBus(own_server.role_url("projections", "postgres"), lease_s=1.0)
    consumers = [await each.subscribe([topic], "s", mode, prefetch=5) for each in (bus, other)]
    confirmed: list[bytes] = []
    refused = 0
    handled: set[bytes] = set()

    async def publish(name: str) -> None:
        nonlocal refused
        for number in range(60):
            payload = f"{name}:{number}".encode()
            while True:
                try:
                    await bus.publish(topic, payload)
                except BusUnavailable:
                    refused += 1
                    await asyncio.sleep(0.01)
                else:
                    confirmed.append(payload)
                    break

    async def consume(index: int) -> None:
        while True:
            for message in await consumers[index].receive(5):
                handled.add(message.payload)
                with contextlib.suppress(BusUnavailable):  # then it may come again
                    await consumers[index].ack(message)

    readers = [asyncio.create_task(consume(index)) for index in range(2)]
    writers = [asyncio.create_task(publish(name)) for name in ("a", "b", "c")]

    async def under_way() -> bool:
        return len(confirmed) >= 30

    await eventually(under_way)
    await restart(own_server)
    await asyncio.gather(*writers)

    async def all_acknowledged() -> bool:
        return handled >= set(confirmed) and sum(await bus.backlog(topic, "s")) == 0

    await eventually(all_acknowledged)
    for reader in readers:
        reader.cancel()
    await asyncio.wait(readers)
    await other.close()
    assert len(confirmed) == 180
    assert refused, "the outage was not seen"


async def test_a_waiting_consumer_waits_through_an_outage(bus: PostgresBus, own_server: PostgresServer) -> None:
    await bus.create_topics(["patient"], partitions=2)
    consumer = await bus.subscribe(["patient"], "s", Mode.SHARED, prefetch=1)
    waiting = asyncio.create_task(collect(consumer, 1))
    own_server.server.kill()
    with pytest.raises(BusUnavailable):
        await bus.publish("patient", b"too early")
    with pytest.raises(BusUnavailable):
        await bus.ping()
    assert not waiting.done()
    await asyncio.to_thread(own_server.server.start)
    await bus.publish("patient", b"x")
    assert payloads(await waiting) == [b"x"]


async def test_what_a_consumer_held_through_an_outage_is_still_its_own(
    bus: PostgresBus, own_server: PostgresServer
) -> None:
    await bus.create_topics(["held"], partitions=1)
    consumer = await bus.subscribe(["held"], "s", Mode.SHARED, prefetch=1)
    await bus.publish("held", b"x")
    [message] = await collect(consumer, 1, ack=False)
    await bus.publish("held", b"flushes the lease")
    own_server.server.kill()
    with pytest.raises(BusUnavailable):
        await consumer.ack(message)
    await asyncio.to_thread(own_server.server.start)
    await consumer.ack(message)
    assert payloads(await collect(consumer, 1)) == [b"flushes the lease"]
    assert await bus.backlog("held", "s") == [0]


async def test_closing_during_an_outage_ends(own_server: PostgresServer) -> None:
    bus = PostgresBus(own_server.role_url("worker", "postgres"), lease_s=1.0)
    await bus.create_topics(["closing"], partitions=1)
    await bus.subscribe(["closing"], "s", Mode.FAILOVER, prefetch=1)
    own_server.server.kill()
    try:
        async with asyncio.timeout(10):
            await bus.close()
    finally:
        await asyncio.to_thread(own_server.server.start)
