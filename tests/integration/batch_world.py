"""Batches of a tenant in a database of its own, a pump, and whoever projects and answers."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast
from uuid import UUID

import asyncpg

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.adapters.redis.budget import RedisBudget
from backplane.ports.budget import Scope
from backplane.ports.bus import Bus
from backplane.ports.database import Row
from backplane.ports.identifiers import new_id
from backplane.security.principal import Principal
from backplane.settings import PoolSettings, Settings
from command_api.batch_file import BatchFile
from command_api.batch_pump import BatchPump
from command_api.batches import Batches, SubmittedBatch
from command_api.content_keys import ContentKeys
from command_api.limits import set_limits
from command_api.submission import Submission
from command_api.tenancy import provision_tenant
from event_schemas.chat import AnswerContent
from event_schemas.codec import AnyEnvelope, decode, encode
from event_schemas.envelope import Envelope
from event_schemas.generation import (
    CancelGeneration,
    GenerationCancelled,
    GenerationCompleted,
    PromptContent,
    SubmitPrompt,
)
from event_schemas.limits import Limits
from event_schemas.payload import Payload, Usage
from event_schemas.topics import CONTROL, commands
from projections.batch import Batch
from projections.event_log import Received
from query_api import batch_readers
from query_api.service import QueryPorts
from tests.conftest import TestDatabase
from tests.data_keys import DATA_KEYS, read
from tests.integration.limits_world import submission
from tests.integration.query_world import TestBus
from tests.integration.test_authenticator import LocalSignals

SLOTS = 2
TOPIC = commands("local")
DEADLINE_S = 20.0


def line(custom_id: str, **body: Any) -> bytes:
    """One line of a file that asks what its ``custom_id`` says."""
    request = {"messages": [{"role": "user", "content": custom_id}]} | body
    return (
        json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": request}) + "\n"
    ).encode()


class World:
    def __init__(self, database: TestDatabase, redis_url: str, open_: AsyncExitStack) -> None:
        self._database = database
        self._redis_url = redis_url
        self._open = open_
        self.bus = TestBus()
        self.settings = Settings(pools={"local": PoolSettings(backend="scripted", models=("m",), slots=SLOTS)})
        self._projected: set[UUID] = set()

    async def start(self) -> None:
        self.owner = await asyncpg.connect(self._database.owner_url)
        self._open.push_async_callback(self.owner.close)
        self.commands = await self._connected("command_api")
        self._leases = await self._connected("relay")
        self._queries = await self._connected("query_api")
        self._batch = Batch(await self._connected("projections"))
        self.budget = RedisBudget(self._redis_url, name=secrets.token_hex(4))
        self._open.push_async_callback(self.budget.close)
        await self.budget.finish(await self.budget.begin())
        self._keys = ContentKeys(self.commands, DATA_KEYS)
        self.batches = Batches(self.commands, self._keys)
        self.tenant_id = await provision_tenant(self.commands, "acme")
        self.principal = Principal(self.tenant_id, new_id(), None, "admin")
        await self.owner.execute(
            "INSERT INTO control.api_keys (key_id, tenant_id, role, name, prefix, secret_hash)"
            " VALUES ($1, $2, 'admin', '', $3, '')",
            *(self.principal.key_id, self.tenant_id, secrets.token_hex(8)),
        )

    async def _connected(self, role: str) -> PostgresDatabase:
        made = PostgresDatabase(self._database.role_url(role), pool_size=4)
        self._open.push_async_callback(made.close)
        return made

    async def upload(self, *lines: bytes, principal: Principal | None = None) -> SubmittedBatch:
        async def chunks() -> AsyncIterator[bytes]:
            for one in lines:
                yield one

        file = BatchFile(1000, 100_000)
        return await self.batches.submit(principal or self.principal, file, chunks(), {"run": "nightly"})

    def submission(self) -> Submission:
        return submission(cast(Bus, self.bus), self.commands, self.budget, self.settings)

    def pump(self) -> BatchPump:
        return BatchPump(self.commands, self._leases, self._keys, self.submission(), self.settings, poll_s=0.01)

    @asynccontextmanager
    async def pumping(self, pump: BatchPump | None = None) -> AsyncIterator[None]:
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task((pump or self.pump()).run(stop))
            try:
                yield
            finally:
                stop.set()

    async def project(self) -> None:
        """All that was decided and published so far."""
        for row in await self.owner.fetch("DELETE FROM control.outbox RETURNING envelope"):
            await self.record(decode(row["envelope"]))
        for message in list(self.bus.topics[TOPIC]):
            await self.record(decode(message.payload))

    async def record(self, *envelopes: AnyEnvelope) -> None:
        fresh = [one for one in envelopes if one.id not in self._projected]
        self._projected.update(one.id for one in fresh)
        await self._batch.apply([Received(one, encode(one)) for one in fresh], [])

    async def tell(self, event: Payload) -> None:
        told = Envelope.first(event, id=new_id(), source="/t", tenant_id=self.tenant_id, actor="worker:t")
        await self.record(told)

    def prompts(self) -> list[SubmitPrompt]:
        """Each that was published, once, in the order of their first time."""
        found = {message.payload: decode(message.payload).data for message in self.bus.topics[TOPIC]}
        assert len({cast(SubmitPrompt, one).generation_id for one in found.values()}) == len(found)
        return [one for one in found.values() if isinstance(one, SubmitPrompt)]

    def cancels(self) -> set[UUID]:
        told = [decode(message.payload).data for message in self.bus.topics[CONTROL]]
        return {one.generation_id for one in told if isinstance(one, CancelGeneration)}

    async def content_of(self, prompt: SubmitPrompt) -> PromptContent:
        wrapped = await self.owner.fetchval(
            "SELECT wrapped FROM control.data_keys WHERE conversation_id = $1", prompt.conversation_id
        )
        key = await DATA_KEYS.unwrap(wrapped, self.tenant_id, prompt.conversation_id)
        return read(prompt.content.model_dump(), key, PromptContent)

    async def end(self, prompt: SubmitPrompt, text: str = "Blue.", *, cancelled: bool = False) -> None:
        """As a worker ends it."""
        wrapped = await self.owner.fetchval(
            "SELECT wrapped FROM control.data_keys WHERE conversation_id = $1", prompt.conversation_id
        )
        key = await DATA_KEYS.unwrap(wrapped, self.tenant_id, prompt.conversation_id)
        await self.project()
        common: dict[str, Any] = {
            "generation_id": prompt.generation_id,
            "conversation_id": prompt.conversation_id,
            "attempt": 1,
            "user_id": prompt.user_id,
            "key_id": prompt.key_id,
            "model": prompt.model,
            "usage": Usage(input_tokens=3, output_tokens=1, source="provider"),
            "deltas": 1,
            "content": key.seal(AnswerContent.of([text])),
        }
        if cancelled:
            await self.tell(GenerationCancelled(**common))
        else:
            answered = {"finish_reason": "stop", "first_token_ms": 1, "duration_ms": 2}
            await self.tell(GenerationCompleted(**common | answered))
        await self.budget.release(prompt.generation_id)

    async def answer_all(self) -> None:
        """Every prompt as it comes, until the batches have ended."""
        ended: set[UUID] = set()
        async with asyncio.timeout(DEADLINE_S):
            while await self.owner.fetchval("SELECT EXISTS (SELECT FROM control.batches WHERE ended_at IS NULL)"):
                for prompt in self.prompts():
                    if prompt.generation_id not in ended:
                        ended.add(prompt.generation_id)
                        await self.end(prompt)
                await asyncio.sleep(0.01)
        await self.project()

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not holds():
                await asyncio.sleep(0.01)

    async def until_ended(self, batch_id: UUID) -> None:
        ended = "SELECT ended_at IS NOT NULL FROM control.batches WHERE batch_id = $1"
        async with asyncio.timeout(DEADLINE_S):
            while not await self.owner.fetchval(ended, batch_id):
                await asyncio.sleep(0.01)
        await self.project()

    async def soon(self) -> None:
        """Nobody waits any more for what was to be left alone for a while."""
        await self.owner.execute("UPDATE control.batches SET next_try_at = now()")

    async def limit(self, **limits: Any) -> None:
        scope = Scope("tenant", self.tenant_id)
        await set_limits(self.commands, LocalSignals(), scope, Limits(**limits), actor="operator")

    async def shown(self, batch_id: UUID) -> Row:
        await self.project()
        return await batch_readers.batch(self._ports, self.principal, batch_id)

    async def results(self, batch_id: UUID) -> list[dict[str, Any]]:
        return await _lines(await batch_readers.results(self._ports, self.principal, batch_id))

    async def errors(self, batch_id: UUID) -> list[dict[str, Any]]:
        return await _lines(await batch_readers.errors(self._ports, self.principal, batch_id))

    @property
    def _ports(self) -> QueryPorts:
        # What else there is, reading batches does not touch.
        return cast(QueryPorts, _Reading(self._queries))


class _Reading:
    data_keys = DATA_KEYS
    read_your_writes_s = 0.1

    def __init__(self, database: PostgresDatabase) -> None:
        self.database = database
        self.freshness = self

    async def caught_up(self, _: float) -> bool:
        return True


async def _lines(parts: AsyncIterator[bytes]) -> list[dict[str, Any]]:
    return [json.loads(one) for one in b"".join([part async for part in parts]).splitlines()]


def codes(errors: Sequence[dict[str, Any]]) -> dict[str | None, str]:
    """What each line failed for, by what its client calls it."""
    assert all(one["response"] is None for one in errors)
    return {one["custom_id"]: one["error"]["code"] for one in errors}
