"""A worker of one pool, as a service."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import secrets
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from backplane.ports.bus import Mode
from backplane.ports.identifiers import new_id
from backplane.settings import LlmSettings, Settings
from backplane.settings.pools import KEYED
from backplane.settings.prices import PriceTable
from backplane.telemetry import status
from backplane.telemetry.readiness import Readiness
from backplane.web.probes import serve_probes
from backplane.wiring.services import master_key, worker_side
from event_schemas import topics
from event_schemas.codec import encode
from event_schemas.control_plane import ProviderKeySetAside
from event_schemas.envelope import Envelope
from workers.added_keys import AddedKeys
from workers.billing import Billing
from workers.cancellation import Cancellations, follow_cancels, forget_old_claims
from workers.claims import Claims
from workers.facts import SOURCE
from workers.inference.port import Backend, KeepsStates
from workers.inference.registry import make_backend
from workers.keys import Keys, configured_keys, no_key
from workers.knowledge.collection_reader import CollectionReader
from workers.load import measure
from workers.ports import AttemptPorts
from workers.publication import publish_event
from workers.sources.making import open_sources
from workers.state_files import StateFiles
from workers.suspension import Suspension
from workers.upstream import Upstream
from workers.worker import Worker

logger = logging.getLogger(__name__)


async def serve(
    settings: Settings, stop: asyncio.Event, *, pool: str, begun: Callable[[Readiness], None] | None = None
) -> None:
    """Run the prompts of ``pool`` until ``stop`` is set, then drain. ``begun`` is called once it works.

    Raises KeyError where the settings have no such pool, UnusableKey where a key of its cannot be found or nobody gave
    it one, NotConfigured, UnusablePrices, BackendUnavailable where its engine does not start.
    """
    described = settings.pools[pool]
    name = f"{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}"
    billing = Billing(settings.pools, PriceTable.load(settings.prices_file))
    configured = configured_keys(pool, described) if described.backend in KEYED else None
    backend = make_backend(pool, described, LlmSettings())
    files = _state_files(backend, settings.data_dir / "suspended" / pool, described.suspended_bytes)
    await backend.start(status.progress)
    try:
        async with (
            worker_side(settings) as side,
            open_sources(
                settings.sources,
                described,
                side.database,
                side.pages,
                CollectionReader(side.signals, side.database, side.data_keys),
            ) as sources,
        ):
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
            suspension = None
            if files is not None and isinstance(backend, KeepsStates):
                suspension = Suspension(backend, files, side.database, side.data_keys)
            worker = Worker(
                name,
                described.slots,
                settings.worker,
                claims,
                commands,
                AttemptPorts(
                    upstream, billing, side.bus, side.streams, side.database, side.data_keys, sources, suspension
                ),
                side.signals,
                readiness,
            )
            cancellations = Cancellations(
                name, claims, billing, control, side.bus, side.streams, side.signals, readiness
            )
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(serve_probes(readiness, settings, stop))
                background = [
                    tasks.create_task(cancellations.run()),
                    tasks.create_task(follow_cancels(side.signals, worker.running.cancel)),
                    tasks.create_task(upstream.keep()),
                    tasks.create_task(measure(pool, side.bus, upstream, worker.waiting.oldest_s)),
                    tasks.create_task(forget_old_claims(claims, settings.worker.keep_claims_hours)),
                ]
                if suspension is not None:
                    background.append(tasks.create_task(suspension.follow(side.signals)))
                    background.append(tasks.create_task(suspension.forget_erased()))
                if added is not None:
                    background.append(tasks.create_task(added.follow(side.signals, worker.keys_changed)))
                status.ready(f"pool {pool}, {described.slots} slots")
                if begun is not None:
                    begun(readiness)
                await worker.run(stop)
                for task in background:
                    task.cancel()
    finally:
        await backend.close()
        if files is not None:
            files.close()


def _state_files(backend: Backend, folder: Path, most_bytes: int) -> StateFiles | None:
    """Where ``backend`` puts states of conversations that rest. None: they are not kept."""
    if not most_bytes or not isinstance(backend, KeepsStates):
        return None
    try:
        files = StateFiles(folder, most_bytes)
    except OSError as error:
        cause = f"{error}; let the worker write there (data_dir), or set the pool's suspended_bytes to 0"
        logger.warning("states are not kept", extra={"action": "states_not_kept", "cause": cause})
        return None
    backend.keep_states(files.plain)
    return files
