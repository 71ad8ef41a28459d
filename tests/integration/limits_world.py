"""Admission by several command APIs, a record that is projected and settled, and whoever ends generations."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.adapters.redis.budget import RedisBudget
from backplane.ports.budget import CountersLost, Scope, Use
from backplane.ports.bus import Bus, Start
from backplane.ports.freshness import Freshness
from backplane.ports.identifiers import new_id
from backplane.security.principal import Principal
from backplane.settings import PoolSettings, Settings
from backplane.settings.prices import PriceTable
from backplane.telemetry.readiness import Readiness
from command_api.allowance import Allowance
from command_api.content_keys import ContentKeys
from command_api.idempotency import BodyHash
from command_api.known_limits import KnownLimits
from command_api.known_personas import KnownPersonas
from command_api.limits import set_limits
from command_api.prompt import Accepted, PromptBody
from command_api.submission import Submission
from command_api.tenancy import provision_tenant
from event_schemas.codec import encode
from event_schemas.envelope import Envelope
from event_schemas.generation import GenerationCompleted
from event_schemas.limits import Limits
from event_schemas.payload import Usage
from event_schemas.topics import EVENTS, PROJECTIONS, WORKERS, all_topics, dead_letters
from projections.main import keep_up
from projections.settling import Settling
from tests.conftest import TestDatabase
from tests.data_keys import DATA_KEYS
from tests.integration.test_authenticator import LocalSignals

MODEL = "priced"
PRICES = """
[[prices]]
model = "priced"
from = 2020-01-01
input = "0"
output = "1000000"
"""
"""A dollar for each token of the answer."""

OpenBus = Callable[[str], Bus]


class LimitsWorld:
    def __init__(
        self, database: TestDatabase, redis_url: str, open_bus: OpenBus, folder: Path, name: str, publish_s: float = 0.5
    ) -> None:
        self._database = database
        self.redis_url = redis_url
        self.name = name
        self._open_bus = open_bus
        self.prices_file = folder / "prices.toml"
        self.prices_file.write_text(PRICES)
        self.settings = Settings(
            pools={"local": PoolSettings(backend="scripted", models=(MODEL,))}, prices_file=self.prices_file
        )
        self._publish_s = publish_s
        self._open = AsyncExitStack()

    async def start(self) -> None:
        self.bus = self._open_bus("worker")
        self._open.push_async_callback(self.bus.close)
        topics = all_topics(list(self.settings.pools))
        await self.bus.create_topics([*topics, *map(dead_letters, topics)], partitions=2)
        await self.bus.ensure_subscription(topics, PROJECTIONS, Start.EARLIEST)
        await self.bus.ensure_subscription([topics[0]], WORKERS, Start.EARLIEST)
        self.database = PostgresDatabase(self._database.role_url("command_api"), pool_size=8)
        self._open.push_async_callback(self.database.close)
        self.budget = RedisBudget(self.redis_url, name=self.name)
        self._open.push_async_callback(self.budget.close)
        self.tenant_id = await provision_tenant(self.database, f"t {secrets.token_hex(4)}")
        self.principal = Principal(self.tenant_id, new_id(), None, "admin")

    async def close(self) -> None:
        await self._open.aclose()

    @asynccontextmanager
    async def projections(self) -> AsyncIterator[Settling]:
        """A process of the projections, stopped when the block ends."""
        async with AsyncExitStack() as open_:
            bus = self._open_bus("projections")
            open_.push_async_callback(bus.close)
            database = PostgresDatabase(self._database.role_url("projections"), pool_size=4)
            open_.push_async_callback(database.close)
            budget = RedisBudget(self.redis_url, name=self.name)
            open_.push_async_callback(budget.close)
            fresh = Freshness(bus, database, all_topics(list(self.settings.pools)))
            settling = Settling(budget, database, fresh, self._publish_s)
            stop = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(settling.run(stop))
                tasks.create_task(keep_up(bus, database, self.settings, stop, Readiness(), settling))
                try:
                    await self.counting()
                    yield settling
                finally:
                    stop.set()

    async def counting(self) -> None:
        """Wait until there are counters to admit by."""
        await self.until(lambda _: True)

    async def door(self) -> Submission:
        """A command API with connections of its own."""
        bus = self._open_bus("command_api")
        self._open.push_async_callback(bus.close)
        budget = RedisBudget(self.redis_url, name=self.name)
        self._open.push_async_callback(budget.close)
        return submission(bus, self.database, budget, self.settings)

    async def limit(self, **limits: Any) -> None:
        await set_limits(self.database, LocalSignals(), self.scope, Limits(**limits), actor="operator")

    @property
    def scope(self) -> Scope:
        return Scope("tenant", self.tenant_id)

    async def use(self) -> Use:
        (use,) = await self.budget.look([self.scope])
        return use

    async def until(self, holds: Callable[[Use], bool]) -> Use:
        async with asyncio.timeout(40):
            while True:
                try:
                    use = await self.use()
                    if holds(use):
                        return use
                except CountersLost:
                    pass
                await asyncio.sleep(0.02)

    async def submit(self, door: Submission, key: str | None = None, max_tokens: int = 10) -> Accepted:
        return (await door.submit(self.principal, prompt(max_tokens), key, None)).accepted

    async def end(self, accepted: Accepted, output_tokens: int) -> None:
        """As a worker tells it."""
        ended = GenerationCompleted(
            generation_id=accepted.generation_id,
            conversation_id=accepted.conversation_id,
            attempt=1,
            user_id=None,
            key_id=self.principal.key_id,
            model=MODEL,
            usage=Usage(
                input_tokens=1, output_tokens=output_tokens, source="provider", cost_usd=Decimal(output_tokens)
            ),
            deltas=0,
            content=None,
            finish_reason="stop",
            first_token_ms=1,
            duration_ms=1,
        )
        event = Envelope.first(ended, id=new_id(), source="/t", tenant_id=self.tenant_id, actor="worker:t")
        assert event.time <= datetime.now(UTC)
        await self.bus.publish(EVENTS, encode(event), key=str(self.tenant_id))


def submission(bus: Bus, database: PostgresDatabase, budget: RedisBudget, settings: Settings) -> Submission:
    prices = PriceTable.load(settings.prices_file)
    allowance = Allowance(budget, KnownLimits(database, 5.0), database, prices, settings)
    keys = ContentKeys(database, DATA_KEYS)
    return Submission(
        bus, database, keys, BodyHash("pepper"), allowance, KnownPersonas(database, keys, remember_s=0), settings
    )


def prompt(max_tokens: int, model: str = MODEL) -> PromptBody:
    return PromptBody.model_validate({"input": "a", "model": model, "parameters": {"max_tokens": max_tokens}})
