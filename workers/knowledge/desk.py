"""What the ingest service does for other processes, which ask it by signal."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import ClassVar, Generic, Protocol, TypeVar
from uuid import UUID

from backplane.ports.database import Database, DatabaseUnavailable

logger = logging.getLogger(__name__)

_REMEMBERED = 1024


class Errand(Protocol):
    @property
    def id(self) -> UUID: ...

    @property
    def tenant_id(self) -> UUID: ...


E = TypeVar("E", bound=Errand)


class Desk(ABC, Generic[E]):
    """Any number may run; each errand is run by one of them."""

    name: ClassVar[str]
    at_once: ClassVar[int]

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen: deque[UUID] = deque(maxlen=_REMEMBERED)
        self._free = asyncio.Semaphore(self.at_once)

    @abstractmethod
    def asked(self) -> AsyncGenerator[E]:
        """Errands, until closed. The same may come again."""

    @abstractmethod
    async def serve(self, asked: E) -> None:
        """Run it and tell who asked. Raises DatabaseUnavailable."""

    @abstractmethod
    async def fail(self, asked: E, reason: str, message: str) -> None:
        """Tell who asked that it came to nothing."""

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks, aclosing(self.asked()) as wanted:
            async for asked in wanted:
                if asked.id not in self._seen:
                    self._seen.append(asked.id)
                    await self._free.acquire()
                    tasks.create_task(self._take(asked))

    async def _take(self, asked: E) -> None:
        try:
            await self._if_mine(asked)
        except DatabaseUnavailable:
            await self.fail(asked, f"{self.name}_unavailable", "Postgres does not answer")
        except Exception as bug:
            # Its own words may quote what was asked.
            logger.error(
                "%s bug: %s", self.name, type(bug).__name__, extra={"action": "errand_bug", "errand": self.name}
            )
            logger.debug("what it said", exc_info=bug)
            await self.fail(asked, f"{self.name}_failed", f"the {self.name} broke off ({type(bug).__name__})")
        finally:
            self._free.release()

    async def _if_mine(self, asked: E) -> None:
        async with self._database.tenant(asked.tenant_id) as session:
            # Held until this is answered.
            lock = await session.one(
                "SELECT pg_try_advisory_xact_lock(hashtextextended(CAST(:lock AS text), 0)) AS held",
                lock=f"{self.name}/{asked.id}",
            )
            if lock is not None and lock["held"]:
                await self.serve(asked)
