"""Two tenants' records as the projections write them, and who signs them."""

from __future__ import annotations

import secrets
from typing import Any

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.ports.bus import Message, Position
from backplane.security.checkpoint import Checkpoint, SigningKey
from event_schemas.codec import AnyEnvelope, encode
from projections import checkpoints, pruning
from projections.batch import Batch
from projections.checkpoints import Due, sign_due
from projections.comparison import Difference
from projections.verify import verify
from tests.conftest import TestDatabase
from tests.unit.projections.story import Story, received

NOW = Due(1, 0)


class Record:
    def __init__(self, database: TestDatabase) -> None:
        self.database = database
        self.key = SigningKey(secrets.token_hex(32))
        self.owner = PostgresDatabase(database.owner_url, pool_size=4)
        self.projector = PostgresDatabase(database.role_url("projections"), pool_size=4)
        self.story, self.other = Story(), Story()

    async def tell(self) -> None:
        for story in (self.story, self.other):
            await self.add([*story.whole(), *story.whole()])

    async def add(self, facts: list[AnyEnvelope]) -> None:
        sent = [Message("events", 0, Position(0, 1), None, encode(fact)) for fact in facts]
        await Batch(self.projector).apply(received(facts), sent)

    async def sign(self, due: Due = NOW) -> int:
        return await sign_due(self.projector, self.key, due, "read_models")

    async def signed(self, story: Story) -> list[Checkpoint]:
        async with self.owner.system() as session:
            found = await checkpoints.between(session, story.tenant_id, 0, 10_000, "read_models")
        return [each for sequence in sorted(found) for each in found[sequence]]

    async def lines(self, story: Story) -> list[dict[str, Any]]:
        async with self.owner.system() as session:
            return await session.all(
                "SELECT * FROM read_models.event_log WHERE tenant_id = :tenant_id ORDER BY sequence",
                tenant_id=story.tenant_id,
            )

    async def prune(self, story: Story, lines: int) -> int:
        """So that the line after so many of ``story`` is the first that is young enough."""
        return await pruning.prune(self.projector, self.key, (await self.lines(story))[lines]["time"])

    async def wrong(self) -> list[Difference]:
        return (await verify(self.owner, "read_models", lambda _: None))[1]

    async def alter(self, sql: str, **parameters: object) -> None:
        async with self.owner.system() as session:
            assert await session.execute(sql, **parameters) == 1

    async def close(self) -> None:
        await self.owner.close()
        await self.projector.close()
