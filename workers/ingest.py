"""The ingest service: makes chunks of documents, searches them and embeds for the other services."""

from __future__ import annotations

import asyncio
import os
import platform
import secrets

from backplane.ports.bus import Mode
from backplane.settings import Settings
from backplane.telemetry import status
from backplane.telemetry.readiness import Readiness
from backplane.web.probes import serve_probes
from backplane.wiring.services import worker_side
from event_schemas import topics
from workers.knowledge.chunk_store import ChunkStore
from workers.knowledge.embedders import Embedders
from workers.knowledge.embedding_desk import EmbeddingDesk
from workers.knowledge.ingestion import IngestionPorts
from workers.knowledge.ingestions import Ingestions
from workers.knowledge.retrieval import Retrieval
from workers.knowledge.search_desk import SearchDesk


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Until ``stop`` is set. Embedders are loaded when the first document or question comes.

    Raises NotConfigured.
    """
    name = f"{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}"
    knowledge = settings.knowledge
    embedders = Embedders(knowledge.embedders, knowledge.reranker)
    try:
        async with worker_side(settings) as side:
            readiness = Readiness(postgres=side.database.ping, bus=side.bus.ping)
            commands = await side.bus.subscribe([topics.INGESTIONS], topics.WORKERS, Mode.SHARED, prefetch=1)
            ports = IngestionPorts(ChunkStore(side.database), embedders, side.data_keys, side.bus, knowledge.read_s)
            ingestions = Ingestions(ports, commands, name, readiness)
            desks = (
                SearchDesk(side.signals, side.database, Retrieval(side.database, embedders)),
                EmbeddingDesk(side.signals, side.database, embedders),
            )
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(serve_probes(readiness, settings, stop))
                working = [tasks.create_task(one.run()) for one in (ingestions, *desks)]
                status.ready(f"embedders {', '.join(knowledge.embedders)}")
                await stop.wait()
                for task in working:
                    task.cancel()
    finally:
        await embedders.close()
