"""What several tenants share is started by the first of them, and logs of nobody."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from backplane.adapters.redis.hub import Hub, Listener
from backplane.adapters.redis.writer import RedisStreamWriter
from backplane.ports.bus import Bus, Log, Position
from backplane.ports.database import Database
from backplane.ports.freshness import Freshness
from backplane.ports.group_commit import GroupCommit
from backplane.ports.single_flight import SingleFlight
from backplane.ports.token_stream import Frame, Kind
from backplane.telemetry import logs
from backplane.telemetry.logs import JsonLines
from command_api.lanes import Lanes

logger = logging.getLogger(__name__)

Lines = list[dict[str, object]]


class Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: Lines = []
        self.setFormatter(JsonLines("test"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self.format(record)))


@pytest.fixture
def lines() -> Iterator[Lines]:
    heard = Heard()
    root = logging.getLogger()
    root.addHandler(heard)
    yield heard.lines
    root.removeHandler(heard)


async def for_a_tenant(work: Coroutine[Any, Any, object]) -> None:
    async def concerned() -> None:
        logs.concerns(tenant_id="a")
        logger.warning("the tenant's own")
        await work

    async with asyncio.timeout(10):
        await asyncio.create_task(concerned())


def assert_of_nobody(lines: Lines, message: str) -> None:
    whose = {line["message"]: line.get("tenant_id") for line in lines}
    assert whose["the tenant's own"] == "a"
    assert whose[message] is None


@pytest.fixture
def nowhere(tmp_path: Path) -> str:
    return f"unix://{tmp_path}/no-redis"


async def test_the_hub(lines: Lines, nowhere: str) -> None:
    hub = Hub(nowhere)
    await for_a_tenant(hub.enter(Listener(b"c", capacity=1, patient=True)))
    await hub.close()
    assert_of_nobody(lines, "Redis is away")


async def test_the_writer_of_tokens(lines: Lines, nowhere: str) -> None:
    writer = RedisStreamWriter(nowhere)

    async def write() -> None:
        writer.append(UUID(int=7), uuid4(), Frame(Kind.STARTED, 1, 0))
        await writer.flush()

    await for_a_tenant(write())
    await writer.close()
    assert_of_nobody(lines, "token stream is away, followers use Postgres")


class Shared:
    """Says in a line of the log that it was called."""

    async def group(self, items: list[int]) -> list[int | Exception]:
        logger.warning("called")
        return list(items)

    async def call(self, key: str) -> None:
        logger.warning("called")

    async def backlog(self, topic: str, subscription: str) -> list[int]:
        logger.warning("called")
        return [0]

    async def heads(self, topic: str) -> Sequence[Position | None]:
        logger.warning("called")
        return [None]


async def grouped(shared: Shared) -> None:
    await GroupCommit(shared.group).submit(1)


async def looked_up(shared: Shared) -> None:
    await SingleFlight(shared.call).get("k")


async def chosen(shared: Shared) -> None:
    now = 0.0
    lanes = Lanes(cast(Bus, shared), lambda: now)
    await lanes.choose("t", UUID(int=7))
    now = 60.0
    await lanes.choose("t", UUID(int=7))


async def compared(shared: Shared) -> None:
    assert await Freshness(cast(Log, shared), cast(Database, shared), ["t"]).caught_up(5)


@pytest.mark.parametrize("use", [grouped, looked_up, chosen, compared])
async def test_what_many_wait_for_together(lines: Lines, use: Callable[[Shared], Coroutine[Any, Any, None]]) -> None:
    await for_a_tenant(use(Shared()))
    assert_of_nobody(lines, "called")
