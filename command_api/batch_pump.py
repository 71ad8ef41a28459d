"""Turns lines of batches into prompts while their pools have nothing better to do, a few at a time.

There is no queue of its own: a batch's lines are rows. Who holds the lease of a batch submits its next lines as any
prompt is submitted, each under a key of its own, so that one that was submitted before a crash is that same prompt
again. A batch whose holder died, or is slow, is taken by another once the lease has ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

import orjson

from backplane.ports.budget import BudgetUnavailable, Standing
from backplane.ports.bus import BusError, MessageTooLarge
from backplane.ports.database import Database, DatabaseUnavailable
from backplane.ports.identifiers import new_id
from backplane.ports.key_wrapping import WrappingUnavailable
from backplane.security.content import CannotRead, ContentErased, DataKey, opened
from backplane.security.principal import Principal
from backplane.settings import Settings
from command_api import batch_lines, conversations
from command_api.admission import Refused, admit
from command_api.allowance import LimitExceeded
from command_api.asker import as_now
from command_api.batch_lines import Failure, Line
from command_api.chat_request import NotAPrompt, chat_request
from command_api.content_keys import ContentKeys
from command_api.prompt import Accepted, OfBatch, PromptBody
from command_api.submission import Submission
from event_schemas.batches import BatchLineContent

logger = logging.getLogger(__name__)

_AT_ONCE = 16
"""Batches that one process feeds at a time."""
_PAGE = 32
_PAGES = 16
"""Of lines that fail all for one reason."""
_SLOTFULS = 2
"""Lines of a tenant that are open in a pool at a time, for each slot of a worker: one runs, and one waits, so that no
slot is idle until this has noticed that a line ended. More would stand before the tenant's own later prompts."""
_BUSY_S = 1.0
_MAY_NOT_S = 5.0
_LIMITED_S = 60.0
_FAULT_S = 5.0
_BUG_S = 60.0

_OUTAGES = (DatabaseUnavailable, BusError, BudgetUnavailable, WrappingUnavailable)


@dataclass(frozen=True, slots=True)
class _Taken:
    """A batch whose lease is ours."""

    batch_id: UUID
    tenant_id: UUID
    taker: UUID


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A line that can be submitted."""

    body: PromptBody
    of_batch: OfBatch
    pool: str


@dataclass(frozen=True, slots=True)
class _Wait:
    """Nothing was submitted, since a limit is in the way for so long."""

    seconds: float


class BatchPump:
    """``leases`` is the database as the role that may take batches of all tenants; ``database`` as the API's own."""

    def __init__(
        self,
        database: Database,
        leases: Database,
        keys: ContentKeys,
        submission: Submission,
        settings: Settings,
        *,
        notice: Callable[[Sequence[Standing]], None] = lambda _: None,
        told: Callable[[], None] = lambda: None,
        poll_s: float = 0.25,
        lease_s: float = 10.0,
    ) -> None:
        """``notice`` is shown how limits stand after each prompt; ``told`` is called after events were decided."""
        self._database = database
        self._leases = leases
        self._keys = keys
        self._submission = submission
        self._settings = settings
        self._notice = notice
        self._told = told
        self._poll_s = poll_s
        self._lease_s = lease_s

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop`` is set."""
        while not stop.is_set():
            by_tenant: defaultdict[UUID, list[_Taken]] = defaultdict(list)
            for taken in await self._take():
                by_tenant[taken.tenant_id].append(taken)
            await asyncio.gather(*map(self._turns, by_tenant.values()))
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._poll_s)

    async def _take(self) -> list[_Taken]:
        taker = new_id()
        try:
            rows = await self._leases.at_once(
                "SELECT * FROM control.take_batches(:taker, :lease_s, :most)",
                taker=taker,
                lease_s=self._lease_s,
                most=_AT_ONCE,
            )
        except DatabaseUnavailable as error:
            logger.warning("batches wait", extra={"action": "batches_wait", "cause": str(error)})
            return []
        return [_Taken(**row, taker=taker) for row in rows]

    async def _turns(self, of_tenant: list[_Taken]) -> None:
        # One after the other, since they are counted together.
        for taken in of_tenant:
            await self._turn(taken)

    async def _turn(self, taken: _Taken) -> None:
        try:
            pause_s = await self._work(taken)
        except _OUTAGES as error:
            logger.warning("batches wait", extra={"action": "batches_wait", "cause": str(error)})
            pause_s = _FAULT_S
        except Exception as bug:
            # Its text may hold what people wrote; and nobody else's batch stops for this one.
            about = {"batch_id": str(taken.batch_id), "cause": type(bug).__name__}
            logger.error("a batch could not be served", extra={"action": "batch_broke"} | about)
            logger.debug("what it said", exc_info=bug)
            pause_s = _BUG_S
        with suppress(DatabaseUnavailable):  # then the lease ends by itself
            async with self._database.tenant(taken.tenant_id) as session:
                await batch_lines.give_back(session, taken.batch_id, taken.taker, pause_s)

    async def _work(self, taken: _Taken) -> float:
        """Bring the batch as far as it goes now. Returns for how long to leave it alone."""
        async with self._database.tenant(taken.tenant_id) as session:
            batch = await batch_lines.look(session, taken.batch_id, taken.taker)
            if batch is None:
                return 0.0
            if batch.is_due and batch.waits and not (batch.is_cancelled or batch.is_expired):
                await batch_lines.expire(session, taken.batch_id)
                self._told()
            asker = await as_now(session, batch.key_id, batch.user_id)
        key = None
        if batch.wrapped is not None:
            key = await self._keys.of_conversation(taken.tenant_id, taken.batch_id, batch.wrapped)
        if batch.is_cancelled or batch.is_expired or batch.is_due:
            return await self._wind_up(taken, batch, key)
        if batch.waits:
            return _MAY_NOT_S if asker is None else await self._feed(taken, asker, key)
        return await self._ended(taken, batch)

    async def _ended(self, taken: _Taken, batch: batch_lines.Standing) -> float:
        if not batch.runs:
            async with self._database.tenant(taken.tenant_id) as session:
                await batch_lines.complete(session, taken.batch_id)
            self._told()
        return 0.0

    async def _wind_up(self, taken: _Taken, batch: batch_lines.Standing, key: DataKey | None) -> float:
        """No line is begun any more; where it was cancelled, what runs is stopped."""
        code, message = "batch_expired", "It was not begun before the batch's window was over."
        if batch.is_cancelled:
            code, message = "batch_cancelled", "It was not begun before the batch was cancelled."
        if batch.waits:
            for _ in range(_PAGES):
                async with self._database.tenant(taken.tenant_id) as session:
                    lines = await batch_lines.waiting(session, taken.batch_id, _PAGE)
                    never = [line for line in lines if not line.was_begun]
                    failures = [Failure(line.number, code, _custom_id(line, key), message) for line in never]
                    await batch_lines.fail(session, taken.batch_id, failures, key)
                self._told()
                for line in lines:
                    if line.was_begun and (wait := await self._begun_again(taken, line, key)) is not None:
                        return wait.seconds
                if len(lines) < _PAGE:
                    break
            return 0.0
        if batch.runs and batch.is_cancelled:
            async with self._database.tenant(taken.tenant_id) as session:
                running = await batch_lines.running(session, taken.batch_id)
                cancels = await conversations.running_in(session, running)
            by = Principal(taken.tenant_id, batch.key_id, batch.user_id, "member")
            for cancel in cancels:
                await self._submission.publish_cancel(by, cancel)
            return _BUSY_S
        return await self._ended(taken, batch)

    async def _feed(self, taken: _Taken, asker: Principal, key: DataKey | None) -> float:
        """Submit the next lines, in order, as long as there is room for each."""
        async with self._database.tenant(taken.tenant_id) as session:
            lines = await batch_lines.waiting(session, taken.batch_id, _PAGE)
            open_lines = await batch_lines.open_by_pool(session)
        pause_s, idle = 0.0, set[str]()
        failures: list[Failure] = []
        try:
            for line in lines:
                if line.was_begun:
                    if (wait := await self._begun_again(taken, line, key)) is not None:
                        pause_s = wait.seconds
                        break
                    continue
                prompt = self._prompt(taken.batch_id, line, asker, key)
                if isinstance(prompt, Failure):
                    failures.append(prompt)
                    continue
                pool = prompt.pool
                if open_lines.get(pool, 0) >= _SLOTFULS * self._settings.pools[pool].slots:
                    break
                if pool not in idle and await self._is_busy(pool):
                    pause_s = _BUSY_S
                    break
                idle.add(pool)
                answer = await self._submitted(taken, asker, prompt)
                if isinstance(answer, Failure):
                    failures.append(answer)
                elif isinstance(answer, _Wait):
                    pause_s = answer.seconds
                    break
                else:
                    open_lines[pool] = open_lines.get(pool, 0) + 1
        finally:
            if failures:
                async with self._database.tenant(taken.tenant_id) as session:
                    await batch_lines.fail(session, taken.batch_id, failures, key)
                self._told()
        return pause_s

    def _prompt(self, batch_id: UUID, line: Line, asker: Principal, key: DataKey | None) -> _Prompt | Failure:
        try:
            content = opened(line.sealed, key, BatchLineContent)
        except (ContentErased, CannotRead):
            return Failure(line.number, "content_erased", None, "What the line said was erased.")
        try:
            body = chat_request(orjson.loads(content.body)).prompt()
            admitted = admit(body, self._settings, asker.models)
        except NotAPrompt as wrong:
            return Failure(line.number, "invalid_request", content.custom_id, str(wrong))
        except Refused as refused:
            return _refused(line.number, content.custom_id, refused)
        return _Prompt(body, OfBatch(batch_id, line.number, content.custom_id), admitted.pool)

    async def _submitted(self, taken: _Taken, asker: Principal, prompt: _Prompt) -> Failure | _Wait | None:
        """None once it is durable."""
        number, custom_id = prompt.of_batch.line, prompt.of_batch.custom_id
        try:
            accepted, standings = await self._submission.submit(asker, prompt.body, None, None, prompt.of_batch)
        except Refused as refused:
            return _refused(number, custom_id, refused)
        except LimitExceeded as limit:
            if limit.exceeded.wait_s is None:
                return Failure(number, "larger_than_limit", custom_id, "It alone takes more than a limit allows.")
            return self._limited(limit)
        except MessageTooLarge as large:
            return Failure(number, "too_large", custom_id, str(large))
        self._notice(standings)
        await self._began(taken, number, accepted, prompt.pool)
        return None

    async def _begun_again(self, taken: _Taken, line: Line, key: DataKey | None) -> _Wait | None:
        """Publish what may not have been published when it was begun. None once it is durable, or never will be."""
        try:
            submitted = await self._submission.submit_again(taken.tenant_id, OfBatch(taken.batch_id, line.number, ""))
        except LimitExceeded as limit:
            return self._limited(limit)
        except MessageTooLarge as large:
            failure = Failure(line.number, "too_large", _custom_id(line, key), str(large))
            async with self._database.tenant(taken.tenant_id) as session:
                await batch_lines.fail(session, taken.batch_id, [failure], key)
            return None
        assert submitted is not None, "it was stored a moment ago, and is for two days"
        pool = self._settings.pool_of(submitted.accepted.model) or ""
        await self._began(taken, line.number, submitted.accepted, pool)
        return None

    async def _began(self, taken: _Taken, line: int, accepted: Accepted, pool: str) -> None:
        async with self._database.tenant(taken.tenant_id) as session:
            await batch_lines.began(session, taken.batch_id, line, accepted.generation_id, pool)

    def _limited(self, limit: LimitExceeded) -> _Wait:
        self._notice(limit.exceeded.standings)
        wait_s = limit.exceeded.wait_s
        return _Wait(_LIMITED_S if wait_s is None else min(max(wait_s, _BUSY_S), _LIMITED_S))

    async def _is_busy(self, pool: str) -> bool:
        rows = await self._leases.at_once("SELECT control.is_busy(:pool) AS busy", pool=pool)
        return bool(rows[0]["busy"])


def _refused(line: int, custom_id: str, refused: Refused) -> Failure:
    return Failure(line, refused.type.replace("-", "_"), custom_id, str(refused))


def _custom_id(line: Line, key: DataKey | None) -> str | None:
    try:
        return opened(line.sealed, key, BatchLineContent).custom_id
    except (ContentErased, CannotRead):
        return None
