"""A `parley up` on servers that the tests own, so that nobody starts them again behind a test's back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import httpx
import redis.asyncio

from backplane.settings import BusSettings, PostgresSettings, Settings
from tests.conftest import PostgresServer, ValkeyServer
from tests.e2e.client import Answer, Client, Json, eventually
from tests.e2e.running import Up


@dataclass(frozen=True)
class World:
    up: Up
    postgres: PostgresServer
    valkey: ValkeyServer
    disk: Path | None
    """Where Postgres has a small file system of its own."""
    no_disk: str
    """Why it has none."""

    @property
    def settings(self) -> Settings:
        return Settings(
            data_dir=self.up.data,
            postgres=PostgresSettings.model_validate({"url": self.postgres.owner_url()}),
            bus=BusSettings(lease_s=1),
        )


async def in_mid_answer(answer: Answer) -> None:
    async def seq() -> int:
        return answer.seq

    await eventually(seq, lambda seen: seen >= 5)
    assert not answer.ended


async def not_ready(client: Client) -> dict[str, str]:
    response = await client.http.get("/readyz")
    reasons: dict[str, str] = response.json()["not_ready"]
    assert response.status_code == (503 if reasons else 200)
    return reasons


async def works(client: Client, text: str = "Are you there?") -> Json:
    """A prompt of its own is accepted, answered and streamed."""
    accepted = await client.submit(text)
    answer = await client.follow_through(accepted["generation_id"], Answer())
    ended = await client.ended(accepted["generation_id"])
    assert (ended["status"], ended["content"]) == ("completed", answer.text)
    return ended


def try_later(response: httpx.Response) -> None:
    assert response.status_code == 503, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == "urn:parley:problem:unavailable"
    assert int(response.headers["retry-after"]) >= 1


async def carried_by_redis(world: World, client: Client) -> None:
    """Return once the worker writes tokens to Redis again, which it tries once a second at the latest."""
    async with redis.asyncio.Redis.from_url(world.valkey.url) as server:

        async def entries() -> int:
            generation_id = (await works(client))["id"]
            return sum([await server.xlen(stream) async for stream in server.scan_iter(f"*{generation_id}*")])

        await eventually(entries, lambda count: count >= 3)
