"""A worker of one pool, as a service."""

from __future__ import annotations

import asyncio
import os
import platform
import secrets
from uuid import UUID

from backplane.ports.bus import Mode
from backplane.ports.identifiers import new_id
from backplane.settings import LlmSettings, Settings
from backplane.settings.pools import KEYED
from backplane.settings.prices import PriceTable
from backplane.telemetry import status
from backplane.telemetry.readiness import Readiness
from backplane.wiring.services import master_key, worker_side
from event_schemas import topics
from event_schemas.codec import encode
from event_schemas.control_plane import ProviderKeySetAside
from event_schemas.envelope import Envelope
from workers.added_keys import AddedKeys
from workers.attempt import AttemptPorts
from workers.billing import Billing
from workers.cancellation import Cancellations, follow_cancels, forget_old_claims
from workers.claims import Claims
from workers.facts import SOURCE
from workers.inference.registry import make_backend
from workers.keys import Keys, configured_keys, no_key
from workers.load import measure
from workers.publication import publish_event
from workers.upstream import Upstream
from workers.worker import Worker


async def serve(settings: Settings, stop: asyncio.Event, *, pool: str) -> None:
    """Run the prompts of ``pool`` until ``stop`` is set, then drain.

    Raises KeyError where the settings have no such pool, UnusableKey where a key of its cannot be found or nobody gave
    it one, NotConfigured, UnusablePrices, BackendUnavailable where its engine does not start.
    """
    described = settings.pools[pool]
    name = f"{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}"
    billing = Billing(settings.pools, PriceTable.load(settings.prices_file))
    configured = configured_keys(pool, described) if described.backend in KEYED else None
    backend = make_backend(pool, described, LlmSettings())
    await backend.start(status.progress)
    try:
        async with worker_side(settings) as side:
            readiness = Readiness(postgres=side.database.ping, bus=side.bus.ping)
            claims = Claims(side.database, name, settings.worker.lease_s)
            commands = await side.bus.subscribe(
                [topics.commands(pool)], topics.WORKERS, Mode.SHARED, prefetch=described.slots
            )
            control = await side.bus.subscribe([topics.CONTROL], topics.WORKERS, Mode.SHARED, prefetch=16)

            async def announce(owner: UUID, news: ProviderKeySetAside) -> None:
                told = Envelope.first(news, id=new_id(), source=SOURCE, tenant_id=owner, actor=f"worker:{name}")
                await publish_event(side.bus, str(owner), encode(told))

            keys = added = None
            if configured is not None:
                keys = Keys(pool, described, configured, side.key_room)
                added = AddedKeys(pool, side.database, master_key(settings), keys)
                await added.load()
                if keys.are_none:
                    raise no_key(pool, described)
            upstream = Upstream(backend, described, keys, announce)
            worker = Worker(
                name,
                described.slots,
                settings.worker,
                claims,
                commands,
                AttemptPorts(upstream, billing, side.bus, side.streams, side.database, side.data_keys),
                side.signals,
                readiness,
            )
            cancellations = Cancellations(
                name, claims, billing, control, side.bus, side.streams, side.signals, readiness
            )
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_serve_health(readiness, settings, stop))
                background = [
                    tasks.create_task(cancellations.run()),
                    tasks.create_task(follow_cancels(side.signals, worker.running.cancel)),
                    tasks.create_task(upstream.keep()),
                    tasks.create_task(measure(pool, side.bus, upstream, worker.waiting.oldest_s)),
                    tasks.create_task(forget_old_claims(claims, settings.worker.keep_claims_hours)),
                ]
                if added is not None:
                    background.append(tasks.create_task(added.follow(side.signals, worker.keys_changed)))
                status.ready(f"pool {pool}, {described.slots} slots")
                await worker.run(stop)
                for task in background:
                    task.cancel()
    finally:
        await backend.close()


async def _serve_health(readiness: Readiness, settings: Settings, stop: asyncio.Event) -> None:
    if settings.health_port:
        # The web framework takes a second to import, and only this needs it.
        from backplane.web.server import serve_health

        await serve_health(readiness, settings, stop)
