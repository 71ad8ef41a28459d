"""The projections as a service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from backplane.ports.bus import Bus, BusError, Consumer, Mode
from backplane.ports.database import Database, DatabaseUnavailable
from backplane.ports.freshness import Freshness
from backplane.settings import Settings
from backplane.telemetry import status
from backplane.telemetry.readiness import Readiness
from backplane.web.probes import serve_probes
from backplane.wiring.services import projection_side
from event_schemas.codec import NewerVersion
from event_schemas.topics import PROJECTIONS, all_topics
from projections.backoff import Backoff
from projections.batch import Batch
from projections.checkpoints import keep_signing
from projections.continuity import Continuity
from projections.insistence import BLOCK, Stopped
from projections.lag import measure
from projections.positions import SetBack
from projections.pruning import keep_pruning
from projections.runner import MOST_MESSAGES, Runner
from projections.settling import Settling

logger = logging.getLogger(__name__)

_RETENTION_S = 3600.0


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Keep the read models up with the bus until ``stop`` is set, and tell when that begins and when it halts."""
    async with projection_side(settings) as side:
        readiness = Readiness(postgres=side.database.ping, bus=side.bus.ping)
        topics = all_topics(list(settings.pools))
        fresh = Freshness(side.bus, side.database, topics)
        settling = Settling(side.settlement, side.database, fresh, settings.limits.publish_s)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(serve_probes(readiness, settings, stop))
            if side.drop_old_messages is not None:
                tasks.create_task(_drop_old_messages(side.drop_old_messages, stop))
            tasks.create_task(keep_signing(side.database, side.signing_key, settings.record, stop))
            if settings.record.keep_days is not None:
                tasks.create_task(keep_pruning(side.database, side.signing_key, settings.record.keep_days, stop))
            tasks.create_task(settling.run(stop))
            tasks.create_task(measure(side.bus, topics, stop))
            tasks.create_task(keep_up(side.bus, side.database, settings, stop, readiness, settling))


async def _drop_old_messages(drop: Callable[[], Awaitable[int]], stop: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            await drop()
        except BusError as error:
            logger.warning("retention waits: %s", error, extra={"action": "retention_waits"})
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _RETENTION_S)


async def keep_up(
    bus: Bus,
    database: Database,
    settings: Settings,
    stop: asyncio.Event,
    readiness: Readiness,
    settling: Settling | None = None,
) -> None:
    """Keep the read models up with the bus until ``stop`` is set, and wake ``settling`` as they move on.

    What Postgres no longer has, since it was restored, is read again first. Outages of the bus and of Postgres are
    waited out, with a reason in ``readiness``. When an envelope of a newer release is met, nothing more is read:
    another process may have the partitions, and this one waits, not ready, until it is stopped.
    """
    topics = all_topics(list(settings.pools))
    batch = Batch(database, None if settling is None else settling.wake)
    continuity = Continuity(bus, database, batch, readiness, stop)
    backoff = Backoff(stop)
    readiness.block(BLOCK, "have not joined their subscription yet")
    while not stop.is_set():
        consumer: Consumer | None = None
        try:
            await continuity.mend(topics)
            consumer = await bus.subscribe(topics, PROJECTIONS, Mode.FAILOVER, prefetch=MOST_MESSAGES)
            readiness.unblock(BLOCK)
            if settling is None:
                status.ready()
            else:
                # Nothing can be admitted before, and rebuilding them takes projections that run.
                settling.on_counting(status.ready)
            backoff = Backoff(stop)
            await Runner(consumer, bus, batch, continuity, readiness, stop).run()
        except SetBack as error:
            logger.warning("%s", error, extra={"action": "projections_set_back"})
            continue
        except BusError as error:
            readiness.block(BLOCK, f"cannot read the bus: {error}")
            logger.warning("cannot read the bus: %s", error, extra={"action": "projections_lost_bus"})
            await backoff.pause()
            continue
        except DatabaseUnavailable as error:
            readiness.block(BLOCK, f"waiting: {error}")
            logger.warning("projections wait: %s", error, extra={"action": "projections_wait"})
            await backoff.pause()
            continue
        except Stopped:
            return
        except NewerVersion as error:
            # Met while reading again; it is left to a newer release like any other.
            readiness.block(BLOCK, str(error))
            logger.error("stopped reading: %s", error, extra={"action": "newer_version_met"})
        finally:
            if consumer is not None:
                await _leave(consumer)
        await stop.wait()


async def _leave(consumer: Consumer) -> None:
    try:
        await consumer.close()
    except BusError as error:
        # What it held goes to others once its lease runs out.
        logger.warning("could not leave the subscription: %s", error, extra={"action": "projections_left_late"})
