"""The ingest service's other task: searching for who has no embedder."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import aclosing
from uuid import UUID

from backplane.ports import searches
from backplane.ports.database import Database, DatabaseUnavailable
from backplane.ports.searches import Asked, Found, SearchFailed
from backplane.ports.token_stream import Signals
from workers.knowledge.retrieval import Retrieval

logger = logging.getLogger(__name__)

_AT_ONCE = 32
_REMEMBERED = 1024


class SearchDesk:
    """Any number may run; each search is made by one of them."""

    def __init__(self, signals: Signals, database: Database, retrieval: Retrieval) -> None:
        self._signals = signals
        self._database = database
        self._retrieval = retrieval
        self._seen: deque[UUID] = deque(maxlen=_REMEMBERED)
        self._free = asyncio.Semaphore(_AT_ONCE)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks, aclosing(searches.asked(self._signals)) as wanted:
            async for asked in wanted:
                if asked.id not in self._seen:
                    self._seen.append(asked.id)
                    await self._free.acquire()
                    tasks.create_task(self._serve(asked))

    async def _serve(self, asked: Asked) -> None:
        try:
            found = await self._found(asked)
            if found is not None:
                await searches.answer(self._signals, asked, found)
        finally:
            self._free.release()

    async def _found(self, asked: Asked) -> list[Found] | SearchFailed | None:
        """None where another does it."""
        try:
            async with self._database.tenant(asked.tenant_id) as session:
                # Held until this is answered.
                lock = await session.one(
                    "SELECT pg_try_advisory_xact_lock(hashtextextended(CAST(:lock AS text), 0)) AS held",
                    lock=f"search/{asked.id}",
                )
                if lock is None or not lock["held"]:
                    return None
                return await self._retrieval.search(asked.tenant_id, asked.collection_id, asked.question, asked.most)
        except SearchFailed as failed:
            return failed
        except DatabaseUnavailable:
            return SearchFailed("search_unavailable", "Postgres does not answer")
        except Exception as bug:
            # Its own words may quote the question.
            logger.error("search bug: %s", type(bug).__name__, extra={"action": "search_bug"})
            logger.debug("what it said", exc_info=bug)
            return SearchFailed("search_failed", f"the search broke off ({type(bug).__name__})")
