"""What stands behind a bus, without the bus: the least that makes a message durable and brings it to somebody else."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import asyncpg

from backplane.settings import PulsarSettings, Settings
from backplane.wiring.embedded import owner_url
from backplane.wiring.operations import operator_bus

Take = Callable[[bytes], None]
Publish = Callable[[bytes], Awaitable[object]]

_TOPIC = "bench-bare"
_TABLE = "bench_bare"
_PUBLISH = f"""
WITH written AS (INSERT INTO {_TABLE} (payload) VALUES ($1) RETURNING id)
SELECT pg_notify('{_TOPIC}', id::text) FROM written
"""  # noqa: S608
_READ = f"SELECT payload FROM {_TABLE} WHERE id = $1"  # noqa: S608


def bare(settings: Settings, take: Take) -> AbstractAsyncContextManager[Publish]:
    """Publishes; ``take`` gets what arrives. The bus's own server, chosen as the bus is."""
    if settings.bus.pulsar.url is not None:
        return _pulsar(settings, take)
    return _postgres(settings, take)


@asynccontextmanager
async def _postgres(settings: Settings, take: Take) -> AsyncIterator[Publish]:
    """One statement that inserts a row and notifies; a listener that reads the row."""
    url = owner_url(settings)
    writer, listener = await asyncpg.connect(url), await asyncpg.connect(url)
    told: asyncio.Queue[int] = asyncio.Queue()

    async def read() -> None:
        while True:
            take(await listener.fetchval(_READ, await told.get()))

    try:
        await writer.execute(f"CREATE TABLE {_TABLE} (id bigserial PRIMARY KEY, payload bytea NOT NULL)")
        await listener.add_listener(_TOPIC, lambda _connection, _pid, _channel, row: told.put_nowait(int(row)))
        reading = asyncio.create_task(read())
        try:
            yield lambda payload: writer.fetchval(_PUBLISH, payload)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
    finally:
        await listener.close()
        await writer.execute(f"DROP TABLE IF EXISTS {_TABLE}")
        await writer.close()


@asynccontextmanager
async def _pulsar(settings: Settings, take: Take) -> AsyncIterator[Publish]:
    """The client as it comes, without batching, on one partition."""
    import pulsar
    from pulsar.asyncio import Client

    async with operator_bus(settings) as bus:
        await bus.create_topics([_TOPIC], partitions=1)
    topic = _full_name(settings.bus.pulsar)
    client = Client(
        settings.bus.pulsar.url,
        # It writes to standard output otherwise.
        logger=pulsar.FileLogger(pulsar.LoggerLevel.Error, os.devnull),
    )
    try:
        consumer = await client.subscribe(topic, "bench", initial_position=pulsar.InitialPosition.Earliest)
        producer = await client.create_producer(topic, batching_enabled=False)

        async def receive() -> None:
            while True:
                message = await consumer.receive()
                take(message.data())
                await consumer.acknowledge(message)

        receiving = asyncio.create_task(receive())
        try:
            yield producer.send
        finally:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
    finally:
        await client.close()


def _full_name(pulsar: PulsarSettings) -> str:
    return f"persistent://{pulsar.tenant}/{pulsar.namespace}/{_TOPIC}-partition-0"
