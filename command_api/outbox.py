"""What was decided in a transaction, on its way to its topic.

A decision changes its row and adds its event here, in one transaction; so does a worker that hands a prompt on to
another pool. The relay publishes in order, at least once, and deletes what is published; rows that commit late are
still there to be found, so none is skipped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from uuid import UUID

from backplane.ports.bus import BusError, Publisher
from backplane.ports.database import Database, DatabaseUnavailable, TenantSession
from backplane.ports.identifiers import new_id
from command_api.lanes import Lanes
from event_schemas.codec import AnyEnvelope, decode, encode
from event_schemas.envelope import Envelope
from event_schemas.generation import SubmitPrompt
from event_schemas.knowledge import IngestDocument
from event_schemas.payload import Payload
from event_schemas.topics import EVENTS, INGESTIONS, commands

logger = logging.getLogger(__name__)

_ONE_AT_A_TIME = 0x6F7574626F78  # "outbox", as an advisory lock
_BATCH = 200
_KEEP_IDEMPOTENCY_HOURS = 48
_OVER = (
    "DELETE FROM control.sessions WHERE expires_at < now()",
    "DELETE FROM control.invitations WHERE expires_at < now()",
    "DELETE FROM control.sign_in_attempts WHERE forget_at < now()",
)


async def add(session: TenantSession, event: AnyEnvelope) -> None:
    """Add an event to the transaction that decides it."""
    await session.execute(
        "INSERT INTO control.outbox (tenant_id, envelope) VALUES (:tenant_id, :envelope)",
        tenant_id=session.tenant_id,
        envelope=encode(event),
    )


async def decided(session: TenantSession, source: str, command: Payload, event: Payload, actor: str) -> None:
    """Add the event of a command that this transaction decides."""
    asked = Envelope.first(command, id=new_id(), source=source, tenant_id=session.tenant_id, actor=actor)
    await add(session, asked.caused(event, id=new_id(), source=source))


def _topic(data: Payload) -> str:
    match data:
        case SubmitPrompt(pool=pool):
            return commands(pool)
        case IngestDocument():
            return INGESTIONS
    return EVENTS


Admits = Callable[[UUID, SubmitPrompt], Awaitable[bool]]
"""Is asked whether a prompt of Parley's own, of this tenant, may run; what it may use is reserved then."""


async def _admit_all(tenant_id: UUID, prompt: SubmitPrompt) -> bool:
    return True


class Relay:
    """Publishes the outbox. Any number may run; one at a time works.

    A prompt of Parley's own that ``admits`` refuses is dropped: nobody was promised it.
    """

    def __init__(
        self, database: Database, publisher: Publisher, admits: Admits = _admit_all, *, poll_s: float = 0.25
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._lanes = Lanes(publisher)
        self._admits = admits
        self._poll_s = poll_s
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Something was added; do not wait for the next poll."""
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop`` is set."""
        while not stop.is_set():
            try:
                published = await self.publish_some()
            except (DatabaseUnavailable, BusError) as error:
                logger.warning("outbox waits", extra={"action": "outbox_waits", "cause": str(error)})
                published = 0
            if published < _BATCH:
                await self._next_round(stop)

    async def publish_some(self) -> int:
        """Publish and delete one batch, oldest first. Returns how many. Raises DatabaseUnavailable, BusError."""
        async with self._database.system() as session:
            lock = await session.one("SELECT pg_try_advisory_xact_lock(:key) AS held", key=_ONE_AT_A_TIME)
            if lock is None or not lock["held"]:
                return 0
            rows = await session.all("SELECT id, envelope FROM control.outbox ORDER BY id LIMIT :n", n=_BATCH)
            for row in rows:
                envelope = decode(row["envelope"])
                prompt = envelope.data
                if (
                    isinstance(prompt, SubmitPrompt)
                    and prompt.purpose != "answer"
                    and not await self._admits(envelope.tenantid, prompt)
                ):
                    continue
                topic, tenant_id = _topic(prompt), envelope.tenantid
                lane = await self._lanes.choose(topic, tenant_id) if isinstance(prompt, SubmitPrompt) else None
                await self._publisher.publish(topic, row["envelope"], key=str(tenant_id), partition=lane)
            if rows:
                await session.execute(
                    "DELETE FROM control.outbox WHERE id = ANY(CAST(:ids AS bigint[]))", ids=[row["id"] for row in rows]
                )
            return len(rows)

    async def forget_old_keys(self) -> int:
        """Delete idempotency keys over two days old, and what nobody is let in with any more. Returns how many keys."""
        async with self._database.system() as session:
            for over in _OVER:
                await session.execute(over)
            return await session.execute(
                "DELETE FROM control.idempotency WHERE created_at < now() - make_interval(hours => :hours)",
                hours=_KEEP_IDEMPOTENCY_HOURS,
            )

    async def forget_uploads(self) -> None:
        """Delete files of batches whose upload broke off."""
        await self._database.at_once("SELECT control.forget_uploads()")

    async def forget_chat_replies(self) -> None:
        """Delete what chat tools asked days ago, and were answered."""
        await self._database.at_once("SELECT control.forget_chat_replies()")

    async def _next_round(self, stop: asyncio.Event) -> None:
        waits = [asyncio.ensure_future(self._wake.wait()), asyncio.ensure_future(stop.wait())]
        await asyncio.wait(waits, timeout=self._poll_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        self._wake.clear()
