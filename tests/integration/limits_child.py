"""A command API in a process of its own: submits prompts all at once, and prints how many were admitted."""

from __future__ import annotations

import asyncio
import json
import sys
from uuid import UUID

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.adapters.postgres_bus.bus import PostgresBus
from backplane.adapters.redis.budget import RedisBudget
from backplane.ports.bus import Bus
from backplane.security.principal import Principal
from backplane.settings import Settings
from command_api.allowance import LimitExceeded
from tests.integration.limits_world import prompt, submission


def open_bus(given: dict[str, str]) -> Bus:
    if "postgres_bus" in given:
        return PostgresBus(given["postgres_bus"])
    from backplane.adapters.pulsar_bus import PulsarAddress, PulsarBus

    return PulsarBus(
        PulsarAddress(given["pulsar"], given["pulsar_admin"], given["pulsar_tenant"], given["namespace"], None)
    )


async def main() -> None:
    given = json.loads(sys.argv[1])
    bus = open_bus(given)
    database = PostgresDatabase(given["database"], pool_size=2)
    budget = RedisBudget(given["redis"], name=given["name"])
    door = submission(bus, database, budget, Settings.model_validate(given["settings"]))
    principal = Principal(UUID(given["tenant"]), UUID(given["key"]), None, "admin")
    await bus.ping()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)

    async def one() -> bool:
        try:
            await door.submit(principal, prompt(10), None, None)
        except LimitExceeded:
            return False
        return True

    print(sum(await asyncio.gather(*(one() for _ in range(given["prompts"])))), flush=True)
    await budget.close()
    await database.close()
    await bus.close()


if __name__ == "__main__":
    asyncio.run(main())
