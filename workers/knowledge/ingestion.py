"""From an uploaded file to chunks that can be found: read, cut, embed, store; then the event that says how it ended."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from backplane.ports.bus import Publisher
from backplane.ports.identifiers import new_id
from backplane.ports.key_wrapping import CannotUnwrap, WrappingUnavailable
from backplane.security.content import CannotRead, DataKeys
from backplane.settings.knowledge import EmbedderSettings
from event_schemas.codec import AnyEnvelope, encode
from event_schemas.knowledge import (
    DocumentIngested,
    IngestDocument,
    IngestionFailed,
    IngestionProgressed,
    Stage,
)
from event_schemas.payload import Payload
from workers.embedding.port import Embedder, EmbedderUnavailable, EmbeddingRefused
from workers.facts import SOURCE
from workers.knowledge.chunk_store import ChunkStore, Kept, NewChunk, Place
from workers.knowledge.chunking import Chunk, chunks
from workers.knowledge.documents import UnreadableDocument
from workers.knowledge.embedders import Embedders
from workers.knowledge.reading import Text, read_document
from workers.publication import publish_event

logger = logging.getLogger(__name__)

MOST_ATTEMPTS = 5
"""That store nothing; then the document has failed."""

MOST_CHUNKS = 50_000
_BATCH = 32
_TELL_EVERY_S = 1.0
_BETWEEN_HEADINGS = " › "


class GaveUp(Exception):
    """It was tried often, each time in vain. ``str`` says what was told of it."""


@dataclass(frozen=True, slots=True)
class IngestionPorts:
    store: ChunkStore
    embedders: Embedders
    data_keys: DataKeys
    publisher: Publisher
    read_s: float


class Ingestion:
    """Of one command. ``run`` may be called again after any crash, here or elsewhere, and goes on from what is
    stored."""

    def __init__(self, ports: IngestionPorts, command: AnyEnvelope, worker: str) -> None:
        assert isinstance(command.data, IngestDocument)
        self._ports = ports
        self._command = command
        self._worker = worker
        self._place = Place(command.tenantid, command.data.collection_id, command.data.document_id, command.id)
        self._told = 0.0

    async def run(self) -> None:
        """Return once it has ended, or is nobody's business any more.

        Raises GaveUp once its end is told, where it should be looked at; EmbedderUnavailable, NoVectors, BusError,
        DatabaseUnavailable, WrappingUnavailable where it should be tried again.
        """
        begun = await self._ports.store.begin(self._place)
        if begun is None:
            return
        if begun["terminal"] is not None:
            # It ended, and who ended it may not have come to say so.
            await publish_event(self._ports.publisher, str(self._place.tenant_id), begun["terminal"])
            return
        if begun["attempts"] > MOST_ATTEMPTS:
            told = f"it was begun {MOST_ATTEMPTS} times, and each time broke off before anything was stored"
            await self._failed("gave_up", told)
            raise GaveUp(told)
        kept = await self._ports.store.kept(self._place)
        if kept is None:
            return
        try:
            await self._make(kept)
        except (UnreadableDocument, EmbeddingRefused) as error:
            await self._failed(error.reason, str(error))
        except (CannotRead, CannotUnwrap) as error:
            await self._failed("unreadable_file", f"the kept file cannot be opened: {error}")
        except (EmbedderUnavailable, WrappingUnavailable):
            # An outage, however long, says nothing of the document.
            await self._ports.store.forgive(self._place)
            raise

    async def _make(self, kept: Kept) -> None:
        # What cannot be embedded need not be read.
        embedder = await self._ports.embedders.get(kept.embedder)
        await self._tell("reading")
        key = await self._ports.data_keys.unwrap(kept.wrapped, self._place.tenant_id, self._place.document_id)
        document = await read_document(key.open_bytes(kept.sealed), self._ports.read_s)
        settings = self._ports.embedders.settings_of(kept.embedder)
        cut = await _cut(document.text, embedder, settings)
        if len(cut) > MOST_CHUNKS:
            raise UnreadableDocument("too_large", f"it has {len(cut)} chunks, the limit is {MOST_CHUNKS}")
        done = await self._ports.store.stored(self._place, embedder.identity)
        while done < len(cut):
            await self._tell("embedding", done, len(cut))
            batch = _texts(document, cut[done : done + _BATCH])
            vectors = await embedder.embed([f"{above}\n{text}" if above else text for above, text in batch], "passage")
            new = [
                NewChunk(done + place, above, text, vector)
                for place, ((above, text), vector) in enumerate(zip(batch, vectors, strict=True))
            ]
            if not await self._ports.store.add(self._place, kept.language, embedder.identity, new):
                return
            done += len(new)
        await self._end(
            DocumentIngested(**self._about(), kind=document.kind, characters=len(document.text), chunks=len(cut)),
            shown=True,
        )

    async def _failed(self, reason: str, detail: str) -> None:
        logger.info("a document failed", extra={"action": "document_failed", "reason": reason} | self._named())
        await self._end(IngestionFailed(**self._about(), reason=reason, detail=detail), shown=False)

    async def _end(self, event: Payload, *, shown: bool) -> None:
        terminal = encode(self._caused(event))
        if await self._ports.store.end(self._place, terminal, shown=shown):
            await publish_event(self._ports.publisher, str(self._place.tenant_id), terminal)

    async def _tell(self, stage: Stage, embedded: int = 0, of: int | None = None) -> None:
        now = time.monotonic()
        if embedded and now - self._told < _TELL_EVERY_S:
            return
        self._told = now
        event = IngestionProgressed(**self._about(), stage=stage, embedded=embedded, chunks=of)
        await publish_event(self._ports.publisher, str(self._place.tenant_id), encode(self._caused(event)))

    def _caused(self, event: Payload) -> AnyEnvelope:
        return self._command.caused(event, id=new_id(), source=SOURCE, actor=f"worker:{self._worker}")

    def _about(self) -> dict[str, object]:
        place = self._place
        return {
            "document_id": place.document_id,
            "collection_id": place.collection_id,
            "ingestion_id": place.ingestion_id,
        }

    def _named(self) -> dict[str, str]:
        return {"document_id": str(self._place.document_id), "tenant_id": str(self._place.tenant_id)}


async def _cut(text: str, embedder: Embedder, settings: EmbedderSettings) -> list[Chunk]:
    return await asyncio.to_thread(
        chunks, text, embedder.lengths, most=settings.chunk_tokens, overlap=settings.overlap_tokens
    )


def _texts(document: Text, cut: list[Chunk]) -> list[tuple[str, str]]:
    """What each chunk stands under, and what it says."""
    return [(_BETWEEN_HEADINGS.join(one.headings), document.text[one.begin : one.end]) for one in cut]
