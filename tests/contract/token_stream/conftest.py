"""Every adapter of the token stream, as the contract suite drives it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from backplane.adapters.redis.eraser import RedisStreamEraser
from backplane.adapters.redis.hub import Hub
from backplane.adapters.redis.reader import RedisStreamReader
from backplane.adapters.redis.writer import RedisStreamWriter
from backplane.ports.token_stream import StreamEraser, StreamReader, StreamWriter
from tests.contract.token_stream.memory import MemoryStream

BUFFERED = 64
"""Frames that a slow follower's buffer holds in these tests."""


@dataclass(frozen=True)
class Streams:
    writer: StreamWriter
    reader: StreamReader
    eraser: StreamEraser


@asynccontextmanager
async def redis_streams(url: str) -> AsyncIterator[Streams]:
    hub = Hub(url)
    writer, reader = RedisStreamWriter(url), RedisStreamReader(url, hub, buffered=BUFFERED)
    eraser = RedisStreamEraser(url)
    try:
        yield Streams(writer, reader, eraser)
    finally:
        await eraser.close()
        await writer.close()
        await reader.close()
        await hub.close()


@pytest.fixture(params=["redis", "memory"])
async def streams(request: pytest.FixtureRequest) -> AsyncIterator[Streams]:
    if request.param == "memory":
        memory = MemoryStream(BUFFERED)
        yield Streams(memory, memory, memory)
        return
    async with redis_streams(request.getfixturevalue("valkey_server").url) as made:
        yield made
