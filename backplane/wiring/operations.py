"""What operators' commands need besides the services' ports. They act as the database's owner."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from backplane.adapters.postgres.rebuild import (
    PostgresShadowTables,
    RebuildRunning,
    ShadowDiffers,
    open_shadow_tables,
)
from backplane.adapters.redis.connection import ping
from backplane.ports.bus import Bus, Start
from backplane.ports.dead_letters import OPERATORS
from backplane.settings import Settings
from backplane.wiring.embedded import completed, migrate, owner_url
from backplane.wiring.services import make_bus
from event_schemas.topics import EVENTS, PROJECTIONS, WORKERS, all_topics, dead_letters

__all__ = [
    "RebuildRunning",
    "ShadowDiffers",
    "operator_bus",
    "redis_ping",
    "set_up",
    "set_up_bus",
    "shadow_tables",
    "topics",
]


async def set_up(settings: Settings) -> tuple[str | None, str]:
    """Bring the database to this release's schema and make the topics and subscriptions. Idempotent.

    Returns (revision before, revision after).
    Raises DatabaseUnavailable, BusUnavailable, BusRefused, EmbeddedServerError.
    """
    revisions = await migrate(settings)
    await set_up_bus(settings)
    return revisions


async def set_up_bus(settings: Settings, *, grant: Sequence[str] = ()) -> list[str]:
    """Make the topics and subscriptions that are missing, and in Pulsar first the tenant and the namespace.

    Pulsar's roles in ``grant`` may then publish and subscribe. Returns the topics. Raises BusUnavailable, BusRefused.
    """
    live = topics(settings)
    dead = [dead_letters(topic) for topic in live]
    async with operator_bus(settings) as bus:
        await bus.create_topics(live, partitions=settings.bus.partitions)
        await bus.create_topics(dead, partitions=1)
        # Before the first publish, so that nothing falls between.
        await bus.ensure_subscription(live, PROJECTIONS, Start.EARLIEST)
        await bus.ensure_subscription([topic for topic in live if topic != EVENTS], WORKERS, Start.EARLIEST)
        await bus.ensure_subscription(dead, OPERATORS, Start.EARLIEST)
        if grant:
            from backplane.adapters.pulsar_bus import PulsarBus

            assert isinstance(bus, PulsarBus)
            for role in grant:
                await bus.allow(role)
    return [*live, *dead]


def topics(settings: Settings) -> list[str]:
    """Every live topic of this installation."""
    return all_topics(list(settings.pools))


@asynccontextmanager
async def operator_bus(settings: Settings) -> AsyncIterator[Bus]:
    """The bus, for setting up and for dead letters. Raises BusUnavailable."""
    bus = make_bus(lambda: owner_url(settings), settings)
    try:
        yield bus
    finally:
        await bus.close()


async def redis_ping(settings: Settings) -> None:
    """Raises StreamUnavailable."""
    url = completed(settings).redis.url
    assert url is not None
    await ping(url.get_secret_value())


def shadow_tables(settings: Settings) -> Callable[[str], AbstractAsyncContextManager[PostgresShadowTables]]:
    """Opens fresh tables for the rebuild of the model that it is called with."""
    return partial(open_shadow_tables, owner_url(settings))
