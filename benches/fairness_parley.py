"""A Parley with several workers, a tenant that floods it, and light tenants beside that one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from uuid import UUID

from backplane.ports.bus import Publisher
from backplane.wiring.operations import operator_bus
from benches.installation import POOL, Installation
from benches.load import Target
from benches.parley import running
from benches.server import Deaths
from cli import tenancy
from cli.child import Launch, Program
from cli.programs import service_programs
from cli.supervisor import Supervisor
from command_api.lanes import lanes
from event_schemas.topics import WORKERS, commands

WORKER_COUNT = 3
SLOTS = 4
"""Of each worker."""

_MOST_TENANTS = 100
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Crowded:
    """``light``: one tenant for each number of lanes that it can share with the flood's."""

    flood: Target
    light: dict[int, Target]
    bus: Publisher

    async def backlog(self) -> int:
        """Prompts that are accepted and not yet answered. Raises BusError."""
        return sum(await self.bus.backlog(commands(POOL), WORKERS))

    async def idle(self) -> None:
        """Return once all that was accepted is answered. Raises BusError."""
        # There is nothing here to wait on.
        while await self.backlog():  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)


def shared_lanes(one: UUID, other: UUID, partitions: int) -> int:
    """How many lanes two tenants have in common."""
    return len({*lanes(one, partitions)} & {*lanes(other, partitions)})


def sharings(partitions: int) -> range:
    """How many lanes two tenants can have in common."""
    return range(max(0, 4 - partitions), 3) if partitions > 1 else range(1, 2)


@asynccontextmanager
async def crowded(installation: Installation, wrong: list[str]) -> AsyncIterator[Crowded]:
    """``wrong`` gets a line for each service that died meanwhile. Raises NotStarted, CommandError, BusError."""
    settings = installation.settings
    async with running(installation) as parley:
        anybody = await parley.target()
        flood = await tenancy.create_tenant(settings, "flood")
        light = await _light(installation, flood)
        targets = {
            tenant: anybody.model_copy(update={"key": await tenancy.issue_key(settings, tenant, "member")})
            for tenant in (flood, *light.values())
        }
        async with _more_workers(installation, wrong), operator_bus(settings) as bus:
            yield Crowded(targets[flood], {sharing: targets[tenant] for sharing, tenant in light.items()}, bus)
    wrong += parley.deaths


async def _light(installation: Installation, flood: UUID) -> dict[int, UUID]:
    settings = installation.settings
    partitions = settings.bus.partitions
    found: dict[int, UUID] = {}
    for number in range(_MOST_TENANTS):
        tenant = await tenancy.create_tenant(settings, f"light {number}")
        found.setdefault(shared_lanes(flood, tenant, partitions), tenant)
        if len(found) == len(sharings(partitions)):
            break
    return dict(sorted(found.items()))


@asynccontextmanager
async def _more_workers(installation: Installation, deaths: list[str]) -> AsyncIterator[None]:
    """As many as `parley up` leaves to be started, which is one a pool."""
    supervisor = Supervisor(installation.settings.data_dir / "logs", Deaths(deaths))
    programs = [_worker(installation, number) for number in range(2, WORKER_COUNT + 1)]
    try:
        await asyncio.gather(*map(supervisor.start, programs))
        yield
    finally:
        await supervisor.stop()


def _worker(installation: Installation, number: int) -> Program:
    first = next(each for each in service_programs(installation.settings) if each.name == f"worker-{POOL}")

    async def launch() -> Launch:
        launched = await first.launch()
        return replace(launched, environment={**installation.environment, **launched.environment})

    return replace(first, name=f"{first.name}-{number}", launch=launch)
