"""A warning that a limit is nearly reached is told once, by whoever notices first."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone

import asyncpg
import pytest

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.ports.budget import Scope, Standing
from backplane.ports.identifiers import new_id
from command_api.limit_warnings import LimitWarnings, window_of
from event_schemas.codec import decode
from event_schemas.limit_warning import LimitNearlyReached
from tests.conftest import TestDatabase

DAY = datetime(2026, 3, 1, tzinfo=UTC)
TENANT = new_id()


def nearly(**other: object) -> LimitNearlyReached:
    fields = {"dimension": "user", "whose": "ada", "limit": "money_per_day", "percent": 81, "used": 81, "of": 100}
    return LimitNearlyReached.model_validate(fields | other)


async def told(database: TestDatabase) -> list[LimitNearlyReached]:
    owner = await asyncpg.connect(database.owner_url)
    rows = await owner.fetch("SELECT envelope FROM control.outbox ORDER BY id")
    await owner.close()
    return [event for row in rows if isinstance(event := decode(row["envelope"]).data, LimitNearlyReached)]


async def test_one_of_many_that_notice_on_many_processes_tells(database: TestDatabase) -> None:
    tenant = new_id()
    databases = [PostgresDatabase(database.role_url("command_api"), pool_size=4) for _ in range(3)]
    replicas = [LimitWarnings(one) for one in databases]
    done = await asyncio.gather(*(one.publish(tenant, nearly(), DAY) for one in replicas for _ in range(5)))
    assert sorted(done) == [False] * 14 + [True]
    # What comes after a restart remembers it, too.
    assert not await LimitWarnings(databases[0]).publish(tenant, nearly(percent=99), DAY)
    assert await told(database) == [nearly()]
    for one in databases:
        await one.close()


@pytest.mark.parametrize(
    "other", [{"dimension": "key"}, {"whose": "bob"}, {"limit": "money_per_month"}], ids=lambda other: str(other)
)
async def test_each_limit_is_told_of_by_itself(database: TestDatabase, other: dict[str, str]) -> None:
    tenant = new_id()
    commands = PostgresDatabase(database.role_url("command_api"), pool_size=1)
    warnings = LimitWarnings(commands)
    assert await warnings.publish(tenant, nearly(), DAY)
    assert await warnings.publish(tenant, nearly(**other), DAY)
    assert not await warnings.publish(tenant, nearly(**other), DAY)
    assert await warnings.publish(new_id(), nearly(), DAY)
    await commands.close()


async def test_a_new_window_is_told_of_again_and_an_old_one_is_not(database: TestDatabase) -> None:
    tenant = new_id()
    commands = PostgresDatabase(database.role_url("command_api"), pool_size=1)
    warnings = LimitWarnings(commands)
    windows = [DAY, DAY + timedelta(days=1), DAY, DAY + timedelta(days=1), DAY + timedelta(days=2)]
    assert [await warnings.publish(tenant, nearly(), at) for at in windows] == [True, True, False, False, True]
    assert len(await told(database)) == 3
    async with commands.tenant(tenant) as session:
        assert len(await session.all("SELECT FROM control.limit_warnings")) == 1
    await commands.close()


def test_what_a_limit_is_warned_of_once_in() -> None:
    now = datetime(2026, 3, 17, 22, 41, 5, 7, tzinfo=timezone(timedelta(hours=-5)))
    assert window_of("usd_per_day", now) == datetime(2026, 3, 18, tzinfo=UTC)
    assert window_of("usd_per_month", now) == datetime(2026, 3, 1, tzinfo=UTC)
    assert window_of("requests_per_minute", now) == datetime(2026, 3, 18, 3, tzinfo=UTC)


def standing(used: int, warn_at_percent: int | None) -> Standing:
    return Standing(Scope("user", TENANT, "ada"), "usd_per_day", 100, used, warn_at_percent, 0.0)


async def test_what_is_noticed_is_told_and_an_outage_is_waited_out(database: TestDatabase) -> None:
    commands = PostgresDatabase(database.role_url("command_api"), pool_size=1)
    heard = asyncio.Event()
    warnings = LimitWarnings(commands, heard.set)
    away = LimitWarnings(PostgresDatabase("postgresql://nobody@127.0.0.1:9/none", pool_size=1))
    tasks = [asyncio.create_task(one.run()) for one in (warnings, away)]
    away.notice([standing(80, 80)], DAY)
    warnings.notice([standing(79, 80), standing(99, None)], DAY)
    for _ in range(3):
        warnings.notice([standing(80, 80)], DAY)
    async with asyncio.timeout(20):
        await heard.wait()
    assert [(one.whose, one.percent, one.used, one.of) for one in await told(database)] == [("ada", 80, 80, 100)]
    for task in tasks:
        assert not task.done()
        task.cancel()
    await commands.close()
