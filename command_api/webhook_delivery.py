"""Telling webhooks of the events of their tenants' logs: in order, at least once, and nobody waits for a slow one.

There is no queue: each webhook's row says to which line of the log it was told. Who holds the lease of a row reads the
lines after that and sends them one at a time; a row whose holder died is taken by another once its lease has ended.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from backplane.ports.database import Database, DatabaseUnavailable, Row
from backplane.ports.identifiers import new_id
from backplane.security.sealing import CannotOpen, MasterKey
from command_api import webhooks
from command_api.webhook_client import TIMEOUT_S, Answer, WebhookClient
from command_api.webhook_message import message
from command_api.webhooks import ACTOR, SOURCE, NoSuchWebhook
from event_schemas.codec import encode
from event_schemas.envelope import Envelope
from event_schemas.webhooks import WebhookDisabled, WebhookTest

logger = logging.getLogger(__name__)

PAUSES_S = (5, 60, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""After each failure of the same delivery, about as the Standard Webhooks propose; a failure after all of them, three
days later, disables the webhook."""

LEASE_S = 4 * TIMEOUT_S
"""Longer than any try: it is renewed before each."""

_LATER_AT_MOST = 0.1
_MOST_AT_ONCE = 256
_PAGE = 20
_WINDOW = 5000
"""Lines of the log that are looked through at a time; most are of no type that somebody chose."""
_TURN_S = 10.0
"""After so long a webhook lets others go first."""

_DISABLED = Answer(None, "it is disabled; remove it and add it again")


@dataclass(frozen=True, slots=True)
class _Taken:
    """A webhook whose lease is ours."""

    webhook_id: UUID
    tenant_id: UUID
    sealed: bytes
    event_types: list[str]
    told_to: int
    recorded_to: int
    failures: int
    taker: UUID


class Deliveries:
    """``leases`` is the database as the role that may take webhooks of all tenants; ``database`` as the API's own."""

    def __init__(
        self,
        database: Database,
        leases: Database,
        master_key: MasterKey,
        client: WebhookClient,
        *,
        poll_s: float = 0.5,
        lease_s: float = LEASE_S,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        self._database = database
        self._leases = leases
        self._master_key = master_key
        self._client = client
        self._poll_s = poll_s
        self._lease_s = lease_s
        self._pauses_s = pauses_s
        self._more = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop`` is set. What is on its way then may be delivered again, by whoever goes on."""
        running: set[asyncio.Task[None]] = set()
        stopped = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                self._more.clear()
                for taken in await self._take(_MOST_AT_ONCE - len(running)):
                    turn = asyncio.create_task(self._turn(taken))
                    running.add(turn)
                    turn.add_done_callback(running.discard)
                more = asyncio.create_task(self._more.wait())
                await asyncio.wait({more, stopped}, timeout=self._poll_s, return_when=asyncio.FIRST_COMPLETED)
                more.cancel()
        finally:
            stopped.cancel()
            for turn in running:
                turn.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def test(self, owner: UUID, webhook_id: UUID) -> Answer:
        """Send it one event that is in no log. Raises NoSuchWebhook, DatabaseUnavailable."""
        rows = await self._leases.at_once("SELECT sealed FROM control.sealed_webhook(:o, :id)", o=owner, id=webhook_id)
        if not rows:
            raise NoSuchWebhook(f"there is no webhook {webhook_id}")
        if rows[0]["sealed"] is None:
            return _DISABLED
        event = WebhookTest(webhook_id=webhook_id)
        envelope = Envelope.first(event, id=new_id(), source=SOURCE, tenant_id=owner, actor=ACTOR)
        return await self._sent(owner, webhook_id, rows[0]["sealed"], encode(envelope))

    async def _take(self, most: int) -> list[_Taken]:
        taker = new_id()
        try:
            rows = await self._leases.at_once(
                "SELECT * FROM control.take_webhooks(:taker, :lease_s, :most)",
                taker=taker,
                lease_s=self._lease_s,
                most=most,
            )
        except DatabaseUnavailable as error:
            logger.warning("webhooks wait", extra={"action": "webhooks_wait", "cause": str(error)})
            return []
        return [_Taken(**row, taker=taker) for row in rows]

    async def _turn(self, taken: _Taken) -> None:
        try:
            await self._deliver(taken)
        except DatabaseUnavailable as error:
            logger.warning("webhooks wait", extra={"action": "webhooks_wait", "cause": str(error)})
        except asyncio.CancelledError:
            with suppress(DatabaseUnavailable):
                await self._changed(taken, "taker = NULL, lease_until = NULL")
            raise
        except Exception:
            # Its lease is kept, so that it is not tried again at once; and nobody else's delivery ends with this one.
            logger.exception(
                "a webhook could not be served",
                extra={"action": "webhook_broke", "webhook_id": str(taken.webhook_id)},
            )

    async def _deliver(self, taken: _Taken) -> None:
        lines = await self._lines(taken)
        looked_to = lines[-1]["sequence"] if len(lines) == _PAGE else self._up_to(taken)
        ends = asyncio.get_running_loop().time() + _TURN_S
        for line in lines:
            answer = await self._sent(taken.tenant_id, taken.webhook_id, taken.sealed, line["envelope"])
            if answer.failure is not None:
                return await self._failed(taken, line["sequence"], answer)
            if not await self._told(taken, line["sequence"]):
                return None  # it was removed, or took so long that somebody else has it
            if asyncio.get_running_loop().time() >= ends:
                looked_to = line["sequence"]
                break
        await self._told(taken, looked_to, "taker = NULL, lease_until = NULL")
        if looked_to < taken.recorded_to:
            self._more.set()
        return None

    def _up_to(self, taken: _Taken) -> int:
        return min(taken.told_to + _WINDOW, taken.recorded_to)

    async def _lines(self, taken: _Taken) -> list[Row]:
        async with self._database.tenant(taken.tenant_id) as session:
            return await session.all(
                """SELECT sequence, envelope FROM read_models.event_log
                   WHERE tenant_id = :tenant_id AND sequence > :told_to AND sequence <= :up_to
                     AND regexp_replace(type, '[.]v[0-9]+$', '') = ANY(:event_types)
                   ORDER BY sequence LIMIT :page""",
                tenant_id=taken.tenant_id,
                told_to=taken.told_to,
                up_to=self._up_to(taken),
                event_types=taken.event_types,
                page=_PAGE,
            )

    async def _sent(self, owner: UUID, webhook_id: UUID, sealed: bytes, envelope: bytes) -> Answer:
        try:
            target = webhooks.opened(self._master_key, sealed, owner, webhook_id)
        except CannotOpen as error:
            return Answer(None, f"its secret cannot be opened: {error}")
        return await self._client.post(target, message(envelope))

    async def _told(self, taken: _Taken, sequence: int, lease: str | None = None) -> bool:
        """It was told of all up to ``sequence``. False if the webhook is not ours any more."""
        renewed = "lease_until = statement_timestamp() + make_interval(secs => :lease_s)"
        return await self._changed(
            taken,
            "told_to = :sequence, failures = 0, last_failure = NULL, next_try_at = statement_timestamp(), "
            + (lease or renewed),
            sequence=sequence,
            **({} if lease else {"lease_s": self._lease_s}),
        )

    async def _failed(self, taken: _Taken, sequence: int, answer: Answer) -> None:
        failure = answer.failure or ""
        gave_up = taken.failures >= len(self._pauses_s)
        if answer.wants_none or gave_up:
            event = WebhookDisabled(
                webhook_id=taken.webhook_id,
                reason="gone" if answer.wants_none else "gave_up",
                detail=failure,
                undelivered=sequence,
            )
            async with self._database.tenant(taken.tenant_id) as session:
                await webhooks.disable(session, taken.webhook_id, taken.taker, event)
            return
        pause_s = max(self._pauses_s[taken.failures] * random.uniform(1, 1 + _LATER_AT_MOST), answer.retry_after_s)
        await self._changed(
            taken,
            """failures = failures + 1, last_failure = :failure, taker = NULL, lease_until = NULL,
               next_try_at = statement_timestamp() + make_interval(secs => :pause_s)""",
            failure=failure,
            pause_s=pause_s,
        )

    async def _changed(self, taken: _Taken, assignments: str, **parameters: object) -> bool:
        async with self._database.tenant(taken.tenant_id) as session:
            changed = await session.execute(
                f"UPDATE control.webhooks SET {assignments} WHERE webhook_id = :id AND taker = :taker",  # noqa: S608
                id=taken.webhook_id,
                taker=taken.taker,
                **parameters,
            )
        return bool(changed)
