"""The ingest service's consumer: one document at a time, from `ingestions`."""

from __future__ import annotations

import logging
from contextlib import suppress

from backplane.ports.bus import BusError, Consumer, Message
from backplane.ports.database import DatabaseUnavailable
from backplane.ports.dead_letters import dead_letter
from backplane.ports.key_wrapping import WrappingUnavailable
from backplane.telemetry import logs
from backplane.telemetry.readiness import Readiness
from event_schemas.codec import NewerVersion, Poison, decode
from event_schemas.knowledge import IngestDocument
from workers.embedding.port import EmbedderUnavailable
from workers.knowledge.chunk_store import NoVectors
from workers.knowledge.ingestion import GaveUp, Ingestion, IngestionPorts

logger = logging.getLogger(__name__)

_PAUSE_S = 5.0


class Ingestions:
    def __init__(self, ports: IngestionPorts, consumer: Consumer, worker: str, readiness: Readiness) -> None:
        self._ports = ports
        self._consumer = consumer
        self._worker = worker
        self._readiness = readiness

    async def run(self) -> None:
        """Until cancelled; what is not done then comes back, here or elsewhere."""
        try:
            while True:
                for message in await self._consumer.receive(limit=1):
                    await self._handle(message)
        except NewerVersion as newer:
            self._readiness.block("ingestions", str(newer))
            logger.error("stopped at a newer version", extra={"action": "newer_version", "cause": str(newer)})
        finally:
            await self._consumer.close()

    async def _handle(self, message: Message) -> None:
        try:
            command = decode(message.payload)
            if not isinstance(command.data, IngestDocument):
                raise Poison(f"{command.type} is no command for the ingest service")
            with logs.concerning(tenant_id=command.tenantid, correlation_id=command.correlationid):
                await Ingestion(self._ports, command, self._worker).run()
        except (Poison, GaveUp) as poison:
            try:
                await dead_letter(self._ports.publisher, message, str(poison))
            except BusError as error:
                await self._later(message, error)
                return
        except NewerVersion:
            raise
        except (EmbedderUnavailable, NoVectors, DatabaseUnavailable, WrappingUnavailable, BusError) as error:
            await self._later(message, error)
            return
        except Exception as bug:
            # Its own words may quote the document. It was counted as an attempt, so that this ends.
            logger.error("ingestion bug: %s", type(bug).__name__, extra={"action": "ingestion_bug"})
            logger.debug("what it said", exc_info=bug)
            await self._later(message, bug)
            return
        with suppress(BusError):
            await self._consumer.ack(message)

    async def _later(self, message: Message, why: Exception) -> None:
        logger.warning("a document waits", extra={"action": "document_waits", "cause": type(why).__name__})
        with suppress(BusError):
            await self._consumer.nack(message, delay=_PAUSE_S)
