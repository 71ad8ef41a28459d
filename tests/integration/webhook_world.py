"""Webhooks of a tenant in a database of its own, and whoever delivers to them."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.ports.database import Row
from backplane.ports.identifiers import new_id
from backplane.security.public_transport import PublicTransport
from backplane.security.sealing import MasterKey
from command_api.webhook_client import WebhookClient
from command_api.webhook_delivery import Deliveries
from command_api.webhooks import Added, EventType, Webhooks
from event_schemas.codec import decode, encode
from event_schemas.control_plane import ApiKeyRevoked
from event_schemas.envelope import Envelope
from event_schemas.generation import GenerationCompleted
from event_schemas.payload import Payload, Plain, Usage
from event_schemas.webhooks import WebhookDisabled
from projections.event_log import Received, append
from tests.conftest import TestDatabase

TIMEOUT_S = 1.0
SOON = (0.01,) * 5
NEVER = (3600.0,)


def revoked() -> ApiKeyRevoked:
    return ApiKeyRevoked(key_id=new_id())


def completed() -> GenerationCompleted:
    return GenerationCompleted(
        generation_id=new_id(),
        conversation_id=new_id(),
        attempt=1,
        user_id=None,
        key_id=new_id(),
        model="m",
        usage=Usage(input_tokens=1, output_tokens=1, source="provider"),
        deltas=1,
        content=Plain(plain={"text": "canary"}),
        finish_reason="stop",
        first_token_ms=1,
        duration_ms=2,
    )


@dataclass
class World:
    database: TestDatabase
    stack: AsyncExitStack
    key: str = field(default_factory=lambda: secrets.token_hex(32))
    tenant: UUID = field(default_factory=new_id)

    @property
    def master_key(self) -> MasterKey:
        return MasterKey(self.key)

    async def connected(self, role: str) -> PostgresDatabase:
        made = PostgresDatabase(self.database.role_url(role), pool_size=4)
        self.stack.push_async_callback(made.close)
        return made

    async def deliveries(
        self, *, pauses_s: Sequence[float] = SOON, timeout_s: float = TIMEOUT_S, allow_private: bool = True
    ) -> Deliveries:
        """As one more process has them."""
        client = WebhookClient(PublicTransport(allow_private=allow_private), timeout_s)
        self.stack.push_async_callback(client.aclose)
        command_api, relay = await self.connected("command_api"), await self.connected("relay")
        return Deliveries(command_api, relay, self.master_key, client, poll_s=0.02, pauses_s=pauses_s)

    @asynccontextmanager
    async def delivering(self, *several: Deliveries, pauses_s: Sequence[float] = SOON) -> AsyncIterator[None]:
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for one in several or [await self.deliveries(pauses_s=pauses_s)]:
                tasks.create_task(one.run(stop))
            try:
                yield
            finally:
                stop.set()

    @asynccontextmanager
    async def process(self, lease_s: float) -> AsyncIterator[asyncio.subprocess.Process]:
        """A process that delivers; killed at the latest when the context is left."""
        made = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.integration.delivering", stdin=asyncio.subprocess.PIPE
        )
        assert made.stdin is not None
        urls = {role: self.database.role_url(role) for role in ("command_api", "relay")}
        made.stdin.write(json.dumps(urls | {"master_key": self.key, "lease_s": lease_s}).encode())
        made.stdin.close()
        try:
            yield made
        finally:
            with suppress(ProcessLookupError):
                made.kill()
            await made.wait()

    @property
    async def webhooks(self) -> Webhooks:
        return Webhooks(await self.connected("command_api"), self.master_key, allow_private=True)

    async def add(self, url: str, *event_types: EventType, tenant: UUID | None = None) -> Added:
        chosen = event_types or ("key.revoked",)
        return await (await self.webhooks).add(tenant or self.tenant, url, chosen, actor="key:me")

    async def listed(self, webhook: UUID) -> Row:
        return next(one for one in await (await self.webhooks).all(self.tenant) if one["id"] == webhook)

    async def until(self, webhook: UUID, condition: Callable[[Row], bool]) -> Row:
        deadline = time.monotonic() + 20
        while not condition(row := await self.listed(webhook)):
            assert time.monotonic() < deadline, row
            await asyncio.sleep(0.01)
        return row

    async def record(self, *payloads: Payload, tenant: UUID | None = None) -> list[str]:
        """Put events into the log, as the projections do. Returns their ids."""
        envelopes: list[Envelope[Payload]] = [
            Envelope.first(one, id=new_id(), source="/test", tenant_id=tenant or self.tenant, actor="operator")
            for one in payloads
        ]
        database = await self.connected("projections")
        async with database.system() as session:
            await append(session, [Received(one, encode(one)) for one in envelopes], "read_models")
        return [str(one.id) for one in envelopes]

    async def disabled(self) -> list[WebhookDisabled]:
        owner = await asyncpg.connect(self.database.owner_url)
        rows = await owner.fetch("SELECT envelope FROM control.outbox ORDER BY id")
        await owner.close()
        return [event for row in rows if isinstance(event := decode(row["envelope"]).data, WebhookDisabled)]
