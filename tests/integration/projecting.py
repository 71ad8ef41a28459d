"""The projections as a process of their own runs them, within a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.ports.bus import Bus
from backplane.settings import Settings
from event_schemas.codec import AnyEnvelope, encode
from event_schemas.generation import SubmitPrompt
from event_schemas.topics import EVENTS, commands
from projections.main import keep_up
from tests.conftest import TestDatabase
from tests.unit.projections.deadline import eventually
from tests.unit.projections.doubles import WatchedReadiness

ENDS_IN_S = 60.0


@asynccontextmanager
async def projecting(bus: Bus, models: TestDatabase, settings: Settings) -> AsyncIterator[WatchedReadiness]:
    """They run under their own role, and are stopped, and ``bus`` closed, when the block ends."""
    database = PostgresDatabase(models.role_url("projections"), pool_size=2)
    readiness, stop = WatchedReadiness(), asyncio.Event()
    serving = asyncio.create_task(keep_up(bus, database, settings, stop, readiness))
    try:
        await eventually(lambda: bool(readiness.said) and (not readiness.blocked or serving.done()))
        yield readiness
    finally:
        stop.set()
        async with asyncio.timeout(ENDS_IN_S):
            await serving
        await database.close()
        await bus.close()


async def publish(bus: Bus, facts: Sequence[AnyEnvelope]) -> None:
    """Each where its service publishes it."""
    for fact in facts:
        topic = commands("local") if isinstance(fact.data, SubmitPrompt) else EVENTS
        await bus.publish(topic, encode(fact), key=str(fact.tenantid))
