"""A query API at work: real Postgres as its own role, real Valkey, a real server, and a bus of the test's own."""

from __future__ import annotations

import asyncio
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import orjson
import uvicorn
from fastapi import FastAPI

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.adapters.redis.hub import Hub
from backplane.adapters.redis.key_room import RedisKeyRoom
from backplane.adapters.redis.reader import RedisStreamReader
from backplane.adapters.redis.signals import RedisSignals
from backplane.adapters.redis.writer import RedisStreamWriter
from backplane.ports.bus import BusUnavailable, Message, Position
from backplane.ports.identifiers import new_id
from backplane.security.api_key import ApiKey
from backplane.security.authenticator import Authenticator
from backplane.security.content import DataKey
from backplane.settings import Settings
from backplane.telemetry.readiness import Readiness
from backplane.web.application import make_application
from backplane.web.gathering import GatheringProtocol
from event_schemas.chat import AnswerContent, Piece
from event_schemas.control_plane import KeyRole
from event_schemas.generation import PromptContent, TokensContent
from event_schemas.payload import Content
from event_schemas.topics import all_topics
from query_api.following import Pace
from query_api.main import ROUTERS
from query_api.service import QueryPorts
from tests.conftest import TestDatabase
from tests.data_keys import DATA_KEYS

PEPPER = "only-in-tests"
TOPICS = all_topics(["local"])


class TestBus:
    """``Log`` and ``Publisher`` with one partition a topic, kept in memory."""

    __test__ = False

    def __init__(self) -> None:
        self.topics: defaultdict[str, list[Message]] = defaultdict(list)
        self.away = False

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        key: str | None = None,
        partition: int | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> Position:
        self._check()
        position = Position(1, len(self.topics[topic]) + 1)
        self.topics[topic].append(Message(topic, 0, position, key, payload, properties or {}))
        return position

    async def backlog(self, topic: str, subscription: str) -> list[int]:
        self._check()
        return [len(self.topics[topic])]

    async def read(self, topic: str, partition: int, *, after: Position | None, limit: int) -> Sequence[Message]:
        self._check()
        return [one for one in self.topics[topic] if after is None or one.position > after][:limit]

    async def heads(self, topic: str) -> Sequence[Position | None]:
        self._check()
        return [self.topics[topic][-1].position if self.topics[topic] else None]

    def _check(self) -> None:
        if self.away:
            raise BusUnavailable("away by the test")


@dataclass
class World:
    url: str
    ports: QueryPorts
    bus: TestBus
    writer: RedisStreamWriter
    owner: asyncpg.Connection
    app: FastAPI
    redis_url: str
    clients: list[httpx.AsyncClient] = field(default_factory=list)
    _data_keys: dict[UUID, DataKey] = field(default_factory=dict)

    async def caller(self, tenant_id: UUID, role: KeyRole, *, user: bool = True) -> Caller:
        """Someone new of a tenant, with a key and perhaps a user."""
        await self.owner.execute(
            "INSERT INTO control.tenants (tenant_id, name) VALUES ($1, 'tenant') ON CONFLICT DO NOTHING", tenant_id
        )
        user_id = new_id() if user else None
        if user_id is not None:
            await self.owner.execute(
                "INSERT INTO control.users (user_id, tenant_id, name, role) VALUES ($1, $2, $3, $4)",
                *(user_id, tenant_id, str(user_id), role),
            )
        key, key_id = ApiKey.make(), new_id()
        await self.owner.execute(
            "INSERT INTO control.api_keys (key_id, tenant_id, user_id, role, name, prefix, secret_hash)"
            " VALUES ($1, $2, $3, $4, 'key', $5, $6)",
            *(key_id, tenant_id, user_id, role, key.prefix, key.hashed(PEPPER)),
        )
        client = httpx.AsyncClient(
            base_url=self.url, headers={"Authorization": f"Bearer {key.reveal()}"}, timeout=20, trust_env=False
        )
        self.clients.append(client)
        return Caller(tenant_id, user_id, key_id, client)

    async def insert(self, table: str, **columns: Any) -> None:
        """A row of a read model, as the projections would write it."""
        names = ", ".join(columns)
        places = ", ".join(f"${place}" for place in range(1, len(columns) + 1))
        values = [orjson.dumps(value).decode() if isinstance(value, list) else value for value in columns.values()]
        await self.owner.execute(f"INSERT INTO read_models.{table} ({names}) VALUES ({places})", *values)

    async def sealed(self, tenant_id: UUID, conversation_id: UUID, content: Content) -> str:
        """``content`` as rows hold it, under the data key of its conversation, which is made where there is none."""
        key = self._data_keys.get(conversation_id)
        if key is None:
            key, wrapped = await DATA_KEYS.make(tenant_id, conversation_id)
            self._data_keys[conversation_id] = key
            await self.owner.execute(
                "INSERT INTO control.data_keys (tenant_id, conversation_id, wrapped) VALUES ($1, $2, $3)",
                *(tenant_id, conversation_id, wrapped),
            )
        return key.seal(content).model_dump_json()

    async def destroy_key(self, conversation_id: UUID) -> None:
        """Only the key: what was written under it stands where it was."""
        gone = await self.owner.execute("DELETE FROM control.data_keys WHERE conversation_id = $1", conversation_id)
        assert gone == "DELETE 1"
        del self._data_keys[conversation_id]

    async def passed(self, topic: str) -> None:
        """The projections have passed all of a topic."""
        head = self.bus.topics[topic][-1].position
        await self.owner.execute(
            "INSERT INTO read_models.positions (topic, partition, ledger, entry) VALUES ($1, 0, $2, $3)"
            " ON CONFLICT (topic, partition) DO UPDATE SET ledger = $2, entry = $3",
            *(topic, *head),
        )


@dataclass(frozen=True)
class Caller:
    tenant_id: UUID
    user_id: UUID | None
    key_id: UUID
    http: httpx.AsyncClient

    async def get(self, path: str, **parameters: Any) -> httpx.Response:
        return await self.http.get(path, params=parameters or None)


NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


async def generation(
    world: World,
    owner: Caller,
    *,
    answer: AnswerContent | None = None,
    prompt: PromptContent | None = None,
    erased: bool = False,
    **columns: Any,
) -> UUID:
    """A generation of ``owner`` with its message; the row is as given, else one that is queued."""
    row: dict[str, Any] = {
        "id": new_id(),
        "tenant_id": owner.tenant_id,
        "conversation_id": new_id(),
        "user_id": owner.user_id,
        "key_id": owner.key_id,
        "model": "m",
        "status": "queued",
        "attempt": 0,
        "created_at": NOW,
    }
    deltas = columns.pop("deltas", None if answer is None else len(answer.delta_lengths))
    if "input_tokens" in columns:
        row |= {"cached_input_tokens": 0, "reasoning_tokens": 0}
    row |= columns
    await world.insert("generations", **row)
    place = row["tenant_id"], row["conversation_id"]
    await world.insert(
        "messages",
        id=row["id"],
        tenant_id=row["tenant_id"],
        conversation_id=row["conversation_id"],
        generation_id=row["id"],
        role="assistant",
        prompt=None if prompt is None else await world.sealed(*place, prompt),
        answer=None if answer is None else await world.sealed(*place, answer),
        deltas=deltas,
        status=row["status"],
        model="m",
        attempt=row["attempt"],
        ordinal=1,
        created_at=NOW,
        erased=erased,
    )
    made: UUID = row["id"]
    return made


async def batch(world: World, owner: Caller, generation_id: UUID, attempt: int, first_seq: int, *deltas: Piece) -> None:
    conversation_id = await world.owner.fetchval(
        "SELECT conversation_id FROM read_models.generations WHERE id = $1", generation_id
    )
    await world.insert(
        "token_batches",
        generation_id=generation_id,
        attempt=attempt,
        first_seq=first_seq,
        tenant_id=owner.tenant_id,
        count=len(deltas),
        content=await world.sealed(owner.tenant_id, conversation_id, TokensContent.of(deltas)),
    )


@dataclass(frozen=True)
class Event:
    id: str
    name: str
    data: dict[str, Any]


async def events(response: httpx.Response) -> AsyncIterator[Event]:
    """Server-Sent Events of a response; comments are left out."""
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        name, _, value = line.partition(": ")
        if not line and fields:
            yield Event(fields["id"], fields["event"], orjson.loads(fields["data"]))
            fields = {}
        elif name:
            fields[name] = value


async def stream(caller: Caller, generation_id: UUID, **headers: str) -> list[Event]:
    """All events of a generation, to its end."""
    after = headers.pop("after", None)
    async with (
        asyncio.timeout(20),
        caller.http.stream(
            "GET",
            f"/v1/generations/{generation_id}/stream",
            params={} if after is None else {"after": after},
            headers=headers,
        ) as response,
    ):
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        return [event async for event in events(response)]


@asynccontextmanager
async def serving(
    database: TestDatabase, redis_url: str, *, read_your_writes_s: float = 5.0, ping_s: float = 15.0
) -> AsyncIterator[World]:
    """The whole of it on a free port."""
    queries = PostgresDatabase(database.role_url("query_api"), pool_size=8)
    hub = Hub(redis_url)
    reader, writer = RedisStreamReader(redis_url, hub), RedisStreamWriter(redis_url)
    room, signals = RedisKeyRoom(redis_url), RedisSignals(redis_url, hub)
    bus = TestBus()
    ports = QueryPorts(
        queries, reader, room, signals, DATA_KEYS, bus, bus, TOPICS, read_your_writes_s, Pace(0.05, 0.5, 2.0), ping_s
    )
    app = make_application(
        "Parley query API", Settings(), Authenticator(queries, PEPPER, 0), Readiness(postgres=queries.ping), ROUTERS
    )
    app.state.query = ports
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=GatheringProtocol, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    serving_task = asyncio.create_task(server.serve([listening]))
    owner = await asyncpg.connect(database.owner_url)
    world = World(f"http://127.0.0.1:{listening.getsockname()[1]}", ports, bus, writer, owner, app, redis_url)
    try:
        yield world
    finally:
        for client in world.clients:
            await client.aclose()
        server.should_exit = True
        await serving_task
        listening.close()
        await owner.close()
        await writer.close()
        await reader.close()
        await room.close()
        await signals.close()
        await hub.close()
        await queries.close()
