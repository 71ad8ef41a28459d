"""The ingest service's other task: searching for who has no embedder."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from backplane.ports import searches
from backplane.ports.database import Database
from backplane.ports.searches import Asked, Found, SearchFailed
from backplane.ports.token_stream import Signals
from workers.knowledge.desk import Desk
from workers.knowledge.retrieval import Retrieval


class SearchDesk(Desk[Asked]):
    name, at_once = "search", 32

    def __init__(self, signals: Signals, database: Database, retrieval: Retrieval) -> None:
        super().__init__(database)
        self._signals = signals
        self._retrieval = retrieval

    def asked(self) -> AsyncGenerator[Asked]:
        return searches.asked(self._signals)

    async def serve(self, asked: Asked) -> None:
        found: list[Found] | SearchFailed
        try:
            found = await self._retrieval.search(asked.tenant_id, asked.collection_id, asked.question, asked.most)
        except SearchFailed as failed:
            found = failed
        await searches.answer(self._signals, asked, found)

    async def fail(self, asked: Asked, reason: str, message: str) -> None:
        await searches.answer(self._signals, asked, SearchFailed(reason, message))
